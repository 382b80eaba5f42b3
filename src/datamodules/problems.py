"""What is wrong with the files of a data set: all of it, in one message."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong with one file of one case."""

    case: str
    file: str
    message: str


def no_file(path: Path) -> str:
    """Return what a path is that is no file."""
    return f"expected a file, got {'a folder' if path.is_dir() else 'a broken link'}"


def listing(problems: Iterable[Problem]) -> str:
    """Return one line for each problem, those of a case together."""
    return "\n".join(f"  {problem.case}: {problem.file}: {problem.message}" for problem in sorted(problems))


def num_cases(problems: Iterable[Problem]) -> int:
    """Return how many cases have a problem."""
    return len({problem.case for problem in problems})
