"""Reading files that may be damaged or hostile: every failure is one error that names the file."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from src.utils.errors import ConfigError

MAX_REASON = 500  # characters; a parser may quote the whole file
# The largest integer up to which a float holds every integer; a page in a browser counts with floats.
MAX_INTEGER = 2**53


class FileError(ValueError):
    """A file is missing, damaged, or not what it should be; the message names it."""


@contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Turn every exception while ``path`` is read into a FileError: no list of a parser's exceptions is complete.

    Raises:
        FileError: ``"expected <expected>, got '<path>': <reason>"``.
        ConfigError: unchanged, for a file that can be parsed but asks for something that does not exist.
    """
    try:
        yield
    except (FileError, ConfigError):
        raise  # these already name what is wrong
    except Exception as error:
        raise FileError(f"expected {expected}, got {str(path)!r}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return an error's message, with its class if the text alone says too little: ``KeyError: 'cell'``."""
    # By its number: the text of h5py's errors repeats path, number and flags.
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if not isinstance(error, (ValueError, OSError)) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def read_json(path: Path, expected: str) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        FileError: if it has none.
    """
    with reading(path, expected):
        return as_mapping(json.loads(path.read_text(encoding="utf-8")))


def read_yaml(path: Path, expected: str) -> dict[str, Any]:
    """Return the mapping of a YAML file; tags that make objects are refused.

    Raises:
        FileError: if it has none.
    """
    with reading(path, expected):
        return as_mapping(yaml.safe_load(path.read_text(encoding="utf-8")))


def as_mapping(content: Any) -> dict[str, Any]:
    """Return the content of a file if it is a mapping.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected keys and values, got {type(content).__name__}")
    return content


def finite_number(value: Any) -> int | float | None:
    """Return ``value`` if it is a finite number that a float can hold, else None."""
    try:
        is_finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return None
    return value if is_finite else None
