"""The command line of a cell, from W&B's template of it (docs.wandb.ai, "Sweep configuration options", ``command``).

Where Hydra would read what W&B's agent writes as another value, such as ``None``, it is written in Hydra's grammar.
"""

import json
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from src.sweeps.arguments import argument
from src.sweeps.sweep import Sweep

PLACEHOLDER = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


def command_line(sweep: Sweep, parameters: dict[str, Any], more: Sequence[str] = ()) -> list[str]:
    """Return the arguments that start a cell, as W&B's agent would, followed by ``more``."""
    macros = _macros(sweep.program, parameters)
    arguments: list[str] = []
    for part in sweep.command:
        text = PLACEHOLDER.sub(lambda match: os.environ.get(match[1], match[1]), part)
        is_macro = text.startswith("${") and text.endswith("}")
        arguments += macros.get(text[2:-1], []) if is_macro else [text]
    return [*arguments, *more]


def _macros(program: str, parameters: dict[str, Any]) -> dict[str, list[str]]:
    """Return what stands for ``${name}`` in a template; W&B's agent leaves out every other name."""
    pairs = [f"{name}={value}" for name, value in parameters.items()]
    overrides = [argument(name, value) for name, value in parameters.items()]
    switches = [
        name if value is True else f"{name}={value}" for name, value in parameters.items() if value is not False
    ]
    return {
        "env": ["/usr/bin/env"],
        "interpreter": ["python"],
        "program": [program],
        "args": [f"--{pair}" for pair in pairs],
        "args_no_hyphens": overrides,
        "args_no_equals": [word for name, value in parameters.items() for word in (f"--{name}", str(value))],
        "args_no_boolean_flags": [f"--{switch}" for switch in switches],
        "args_append_hydra": [f"+{override}" for override in overrides],
        "args_override_hydra": [f"++{override}" for override in overrides],
        "args_json": [json.dumps(parameters)],
    }


def for_people(command: Sequence[str]) -> str:
    """Return a command line as one would type it."""
    return shlex.join(command[1:] if command[0] == "/usr/bin/env" else command)
