"""What a program tells the person who runs it: notes on stderr, and one message instead of a traceback."""

import difflib
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """The configuration or the command line asks for something that does not exist."""


class JobFailed(Exception):
    """A job of a multirun has failed, and has said why. (It is here because a launcher's processes pickle it.)"""


def did_you_mean(name: str, valid: Iterable[str], *, listed: bool = True) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name nearest to ``name``, else, if ``listed``, all valid names.

    A dotted name is compared as a whole, and its last part with the last parts, so that ``max_epoch`` finds
    ``trainer.max_epochs``.
    """
    names = sorted(set(valid))
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not nearest:
        by_leaf = {full.rsplit(".", 1)[-1]: full for full in reversed(names)}
        leaves = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.7)
        nearest = [by_leaf[leaf] for leaf in leaves]
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; valid: {', '.join(names)}" if listed and len(names) <= 20 else ""


def check_range(low: float, high: float = math.inf, **values: float | None) -> None:
    """Raise ValueError, naming it, for a value that does not lie from ``low`` to ``high``; None is no value."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise ValueError(f"expected {name} {bounds}, got {value}")


# A loss that is not finite raises ArithmeticError; a missing file or a folder without write permission, OSError.
USER_ERRORS = (ValueError, ArithmeticError, OSError)
# The exit code after one.
USER_ERROR = 2


def full_traceback_wanted(arguments: list[str]) -> bool:
    """Return whether HYDRA_FULL_ERROR or ``debug=true`` on the command line asks for the full traceback."""
    return os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0") or "debug=true" in [a.lower() for a in arguments]


def root_message(error: BaseException) -> str:
    """Return an error's message, or that of the error that Hydra wraps in it, with the config key that Hydra names."""
    from hydra.errors import InstantiationException

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        keys = [line.removeprefix("full_key:") for line in str(error).splitlines() if line.startswith("full_key:")]
        return root_message(error.__cause__) + "".join(f"\n(while building{key})" for key in keys)
    return str(error) or type(error).__name__


def is_user_error(error: BaseException) -> bool:
    """Return whether a user can cause the error, or the one that Hydra wraps when it cannot build an object."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return is_user_error(error.__cause__)
    kinds: tuple[type[BaseException], ...] = (*USER_ERRORS, HydraException, OmegaConfBaseException)
    if "lightning_fabric" in sys.modules:
        # Importing Lightning to report a typo would take seconds.
        from lightning_fabric.utilities.exceptions import MisconfigurationException

        kinds += (MisconfigurationException,)
    return isinstance(error, kinds)


def say(message: str) -> None:
    """Print a line on stderr, once for all processes of a distributed run; no library's log level silences it."""
    # Imported late: most processes never say anything, and those of `run_parallel` do without Lightning.
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:
        print(message, file=sys.stderr, flush=True)


def add_note(error: BaseException, note: str) -> None:
    """Add a line to be shown below the error's message, as `BaseException.add_note` of Python 3.11 does."""
    error.__notes__ = [*getattr(error, "__notes__", []), note]


def replaced_exit(error: BaseException) -> SystemExit | None:
    """Return the SystemExit that ``error`` took the place of.

    A signal can arrive where a library's ``finally`` does not expect it, and then fails: Hydra's, while it composes.
    """
    earlier = error.__context__
    while earlier is not None and not isinstance(earlier, SystemExit):
        earlier = earlier.__context__
    return earlier


@contextmanager
def user_errors(show_traceback: bool) -> Iterator[None]:
    """Turn a user's error into one message on stderr and exit code 2; other errors keep their traceback.

    An error that took the place of a SystemExit is not shown: the program ends as it was asked to.
    """
    try:
        yield
    except Exception as error:
        if (asked := replaced_exit(error)) is not None:
            raise asked from None
        if show_traceback or not is_user_error(error):
            raise
        lines = [f"error: {root_message(error)}", *getattr(error, "__notes__", [])]
        lines.append("(debug=true or HYDRA_FULL_ERROR=1 shows the full traceback)")
        print("\n".join(lines), file=sys.stderr)
        sys.exit(USER_ERROR)
