"""Which cases are for training, validation and test: drawn once and kept in a file."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.datamodules.cached_files import require_writable
from src.datamodules.problems import enumerated
from src.utils.errors import ConfigError
from src.utils.files import write_text
from src.utils.reading import as_mapping, reading

SPLITS = ("train", "val", "test")
HELD_OUT = ("val", "test")

Split = dict[str, list[str]]
# The cases of each.
Groups = list[list[str]]


def find_split(
    path: Path,
    names: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    fold: int,
    groups: Mapping[str, str] | None = None,
) -> Split:
    """Return the split of a JSON file, which is drawn and written first if it does not exist; see `draw_split`.

    Raises:
        ValueError: as `draw_split` and `read_split` do.
    """
    if not path.exists():
        _require_no_fold(fold, "a split that is drawn")
        write_split(path, draw_split(names, val_fraction, test_fraction, seed, groups))
    return read_split(path, names, fold)


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON; ValueError if its folder cannot be written."""
    require_writable(path.parent)
    write_text(path, json.dumps(split, indent=2))


def draw_split(
    names: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> Split:
    """Return a random partition of the cases; with a ``test_fraction`` of 0, "test" has the cases of "val".

    Args:
        names: of the cases.
        val_fraction, test_fraction: of the cases, as near as whole groups allow, and at least one group.
        seed: of the draw.
        groups: of each case by its name, such as the patient, and all of one group are in one part; None: each case is
            one.

    Raises:
        ValueError: if no case would be left for training, or there are fewer groups than parts.
    """
    num_val = max(1, round(val_fraction * len(names)))
    num_test = max(1, round(test_fraction * len(names))) if test_fraction > 0 else 0
    if num_val + num_test >= len(names):
        raise ValueError(
            f"expected more than {num_val + num_test} labelled cases, for val_fraction={val_fraction} and "
            f"test_fraction={test_fraction}, got {len(names)}"
        )
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        members[name if groups is None else groups[name]].append(name)
    num_parts = 3 if num_test else 2
    if len(members) < num_parts:
        raise ValueError(
            f"expected at least {num_parts} groups of cases, such as patients, one for each part of the split, got "
            f"{len(members)}: {enumerated(list(members))}; test_fraction=0 needs 2"
        )
    # By their first cases, so that groups of one case are drawn as cases are.
    by_first = {cases[0]: cases for cases in members.values()}
    order = [by_first[first] for first in np.random.default_rng(seed).permutation(list(by_first)).tolist()]
    val, rest = _take(order, num_val, len(order) - num_parts + 1)
    test, rest = _take(rest, num_test, len(rest) - 1) if num_test else (val, rest)
    return {"train": _sorted_cases(rest), "val": _sorted_cases(val), "test": _sorted_cases(test)}


def _take(order: Groups, wanted: int, most: int) -> tuple[Groups, Groups]:
    """Return 1 to ``most`` groups with about ``wanted`` cases, and the others.

    A group is taken, in this order, if it brings the number of cases nearer to the wanted one.
    """
    taken: Groups = []
    rest: Groups = []
    count = 0
    for cases in order:
        if len(taken) < most and abs(count + len(cases) - wanted) < abs(count - wanted):
            taken.append(cases)
            count += len(cases)
        else:
            rest.append(cases)
    if not taken:
        taken = [min(rest, key=len)]
        rest.remove(taken[0])
    return taken, rest


def _sorted_cases(groups: Groups) -> list[str]:
    return sorted(name for cases in groups for name in cases)


def read_split(path: Path, names: Sequence[str], fold: int = 0) -> Split:
    """Read a split, possibly the user's own, or a fold of nnU-Net's; ``names`` are the labelled cases.

    Raises:
        ConfigError: for a fold of a file that has no folds.
        ValueError: if the file is no split, lacks cases for some part, has cases that are not among the names, or
            trains with cases that it validates or tests with.
    """
    expected = f"a JSON file with lists of cases {', '.join(SPLITS)}, or a list of folds as in splits_final.json"
    with reading(path, expected):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            content = _fold(content, fold)
        else:
            _require_no_fold(fold, str(path))
        content = as_mapping(content)
        split = {part: [str(name) for name in content[part]] for part in SPLITS}
    for part in SPLITS:
        if not split[part]:
            raise ValueError(f"expected cases in {part} of {path}, got none")
    unknown = sorted({name for part in SPLITS for name in split[part]} - set(names))
    if unknown:
        raise ValueError(f"expected labelled cases of the data in {path}, got {', '.join(unknown)}")
    leaked = sorted(set(split["train"]) & {*split["val"], *split["test"]})
    if leaked:
        raise ValueError(f"expected training cases apart from val and test in {path}, got in both: {', '.join(leaked)}")
    return split


def _fold(folds: list[Any], number: int) -> dict[str, Any]:
    """Return a fold, {"train": [...], "val": [...]}, with its validation cases as a test too."""
    if number >= len(folds):
        raise ValueError(f"datamodule.fold={number} of {len(folds)} folds, which begin with 0")
    return {"test": folds[number]["val"], **folds[number]}


def _require_no_fold(fold: int, source: str) -> None:
    if fold:
        raise ConfigError(
            f"expected datamodule.split_file as a list of folds, such as nnU-Net's splits_final.json, for "
            f"datamodule.fold={fold}, got {source}, which is only one; datamodule.fold=0 takes it"
        )
