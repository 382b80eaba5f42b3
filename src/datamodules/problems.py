"""What is wrong with the files of a data set: all of it, in one message."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

SHOWN = 3  # a wrong option of the configuration is wrong for each of perhaps thousands of files


class Problem(NamedTuple):
    """What is wrong with one file of one case."""

    case: str
    file: str
    message: str


def no_file(path: Path) -> str:
    """Return what a path is that is no file."""
    return f"expected a file, got {'a folder' if path.is_dir() else 'a broken link'}"


def no_folder(path: Path) -> str:
    """Return a path, and what it is that is no folder."""
    return f"{path}, which {'is no folder' if path.exists() else 'does not exist'}"


def listing(problems: Iterable[Problem]) -> str:
    """Return one line for each problem, those of a case together; of problems that differ in their numbers alone,
    `SHOWN` lines, and the names of the other files in one more."""
    lines: list[str] = []
    alike: dict[str, list[str]] = defaultdict(list)
    for problem in sorted(problems):
        others = alike[re.sub(r"\d+", "", problem.message)]
        others.append(f"{problem.case}: {problem.file}")
        if len(others) <= SHOWN:
            lines.append(f"  {others[-1]}: {problem.message}")
    for names in alike.values():
        if len(names) > SHOWN:
            lines.append(f"  {len(names) - SHOWN} more like {names[0]}: {', '.join(names[SHOWN:])}")
    return "\n".join(lines)


def num_cases(problems: Iterable[Problem]) -> int:
    """Return how many cases have a problem."""
    return len({problem.case for problem in problems})


def enumerated(names: Sequence[str], shown: int = 10, separator: str = ", ") -> str:
    """Return the first names in a message."""
    return separator.join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
