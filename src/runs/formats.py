"""Checks of every file of a run before its content is used; someone else may have written it."""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.utils.errors import ConfigError, add_note
from src.utils.reading import FileError

# The version of all files in a run folder that hold keys and values, stored under this key. Raise it when a reader of
# the version before would misunderstand a file. Files of version 0 have no number.
FORMAT, FORMAT_KEY = 1, "format"
# More nested containers would exceed Python's recursion limit in whatever walks through them.
MAX_DEPTH = 50
TOO_DEEP = f"expected at most {MAX_DEPTH} nested containers, got more"


def check_format(content: Mapping[str, Any], path: Path) -> None:
    """Check that this version of the project can read a file.

    Raises:
        FileError: if a later version wrote it.
    """
    found = content.get(FORMAT_KEY, 0)
    if found not in range(FORMAT + 1):
        raise FileError(
            f"expected a file of format {FORMAT} or earlier, got {str(path)!r} of format {reprlib.repr(found)}: "
            "a later version of this project wrote it"
        )


@contextmanager
def explaining_age(content: Mapping[str, Any], path: Path) -> Iterator[None]:
    """Add to an error in the configuration of a file that an earlier version of the project wrote it."""
    try:
        yield
    except ConfigError as error:
        found = content.get(FORMAT_KEY, 0)
        if found < FORMAT:
            add_note(error, f"an earlier version of this project wrote {path} (format {found}, today {FORMAT})")
        raise


def check_depth(content: Any) -> None:
    """Check how deep containers are nested.

    Raises:
        ValueError: if it is more than ``MAX_DEPTH``.
    """
    level = [content]
    for _ in range(MAX_DEPTH):
        containers = [node for node in level if isinstance(node, dict | list)]
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
    if level:
        raise ValueError(TOO_DEEP)
