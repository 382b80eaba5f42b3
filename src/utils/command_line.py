"""What the command lines that take ``key=value`` arguments have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable

from src.utils.errors import full_traceback_wanted, user_errors
from src.utils.signals import exit_on_signals


def run_command_line(help_text: str | None, run: Callable[[list[str]], object]) -> None:
    """Call ``run`` with the arguments, a user's errors being one message; print the help for none or ``--help``."""
    arguments = sys.argv[1:]
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(help_text)
        return
    with exit_on_signals(), user_errors(full_traceback_wanted(arguments)):
        run(arguments)
