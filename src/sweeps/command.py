"""The command line of a cell, as W&B's agent builds it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from src.sweeps.sweep import Sweep


def command_line(sweep: Sweep, parameters: dict[str, Any], more: Sequence[str] = ()) -> list[str]:
    """Return the arguments that start a cell.

    Args:
        sweep: whose ``command`` is the template.
        parameters: the values of this cell.
        more: arguments behind those of the template.
    """
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros: dict[str, Any] = create_sweep_command_args({"args": {name: {"value": v} for name, v in parameters.items()}})
    # What the agent adds to these: wandb.wandb_agent.Agent._command_run.
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep.program]}
    arguments: list[str] = []
    for part in create_sweep_command(list(sweep.command)):
        is_macro = str(part).startswith("${") and str(part).endswith("}")
        arguments += macros.get(part[2:-1], []) if is_macro else [str(part)]
    return [*arguments, *more]


def for_people(command: Sequence[str]) -> str:
    """Return a command line as one would type it."""
    words = command[1:] if command[0] == "/usr/bin/env" else command
    return shlex.join(words)
