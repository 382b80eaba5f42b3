"""What is wrong with the files of a data set: all of it, in one message."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

# A wrong option of the configuration is wrong for each of perhaps thousands of files.
SHOWN, NAMED = 3, 30
# What differs between the messages of one problem: numbers, and paths and values in quotes.
DETAILS = re.compile(r"'[^']*'|\d+")


class Problem(NamedTuple):
    """What is wrong with one file of one case, which may be the file itself."""

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
    """Return one line for each problem, those of a case together; of problems that differ in their `DETAILS` alone,
    `SHOWN` lines, and the names of `NAMED` other files in one more."""
    lines: list[str] = []
    alike: dict[str, list[str]] = defaultdict(list)
    for problem in sorted(problems):
        others = alike[DETAILS.sub("", problem.message)]
        others.append(problem.file if problem.file == problem.case else f"{problem.case}: {problem.file}")
        if len(others) <= SHOWN:
            lines.append(f"  {others[-1]}: {problem.message}")
    for names in alike.values():
        if len(names) > SHOWN:
            lines.append(f"  {len(names) - SHOWN} more like {names[0]}: {enumerated(names[SHOWN:], NAMED)}")
    return "\n".join(lines)


def num_cases(problems: Iterable[Problem]) -> int:
    """Return how many cases have a problem."""
    return len({problem.case for problem in problems})


def enumerated(names: Sequence[str], shown: int = 10, separator: str = ", ") -> str:
    """Return the first names in a message."""
    return separator.join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
