"""Cases that belong together, such as the scans of one patient: they are all in one part of a split."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.datamodules.problems import enumerated
from src.datamodules.split import HELD_OUT


def check_expression(expression: str | None) -> None:
    """Raise ValueError if datamodule.group is no regular expression; None is none."""
    try:
        re.compile(expression or "")
    except re.error as error:
        raise ValueError(
            f"expected datamodule.group as a regular expression, such as '(.+)_[0-9]+', got '{expression}': {error}"
        ) from error


def groups_by_name(names: Sequence[str], expression: str | None) -> dict[str, str]:
    """Return the group of each name: what the expression finds in it, its first group if it has one; None: the name.

    Raises:
        ValueError: if the expression finds nothing in a name.
    """
    if expression is None:
        return {name: name for name in names}
    pattern = re.compile(expression)
    found = {name: pattern.search(name) for name in names}
    groups = {name: match[min(1, pattern.groups)] for name, match in found.items() if match is not None}
    unmatched = [name for name in names if not groups.get(name)]
    if unmatched:
        raise ValueError(
            f"expected datamodule.group='{expression}' to find the group in the name of each case, got nothing in "
            f"{enumerated(unmatched)}"
        )
    return groups


def division_warning(split: Mapping[str, Sequence[str]], groups: Mapping[str, str], source: Path) -> str | None:
    """Return what to say of a split whose train has groups of its val or test; None if there are none."""
    held_out = {groups[name] for part in HELD_OUT for name in split[part]}
    divided = sorted(held_out & {groups[name] for name in split["train"]})
    if not divided:
        return None
    return (
        f"{len(divided)} groups of cases, such as patients, are in train and also in val or test of {source}, and the "
        f"scores are too good: {enumerated(divided)}. Put each into one part, or remove a drawn file to have that drawn"
    )
