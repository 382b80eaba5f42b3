"""Which cases are for training, validation and test: drawn once and kept in a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.datamodules.cached_files import require_writable
from src.utils.files import write_text
from src.utils.reading import as_mapping, reading

SPLITS = ("train", "val", "test")

Split = dict[str, list[str]]


def find_split(
    path: Path, names: Sequence[str], val_fraction: float, test_fraction: float, seed: int, fold: int
) -> Split:
    """Return the split of a JSON file, which is drawn and written first if it does not exist."""
    if not path.exists():
        require_writable(path.parent)
        write_text(path, json.dumps(draw_split(names, val_fraction, test_fraction, seed), indent=2))
    return read_split(path, names, fold)


def draw_split(names: Sequence[str], val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Return a random partition of the cases; with a ``test_fraction`` of 0, "test" has the cases of "val".

    Raises:
        ValueError: if no case would be left for training.
    """
    num_val = max(1, round(val_fraction * len(names)))
    num_test = max(1, round(test_fraction * len(names))) if test_fraction > 0 else 0
    if num_val + num_test >= len(names):
        raise ValueError(
            f"expected more than {num_val + num_test} labelled cases, for val_fraction={val_fraction} and "
            f"test_fraction={test_fraction}, got {len(names)}"
        )
    order = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    held_out = sorted(order[:num_val])
    test = sorted(order[num_val : num_val + num_test]) if num_test else held_out
    return {"train": sorted(order[num_val + num_test :]), "val": held_out, "test": test}


def read_split(path: Path, names: Sequence[str], fold: int = 0) -> Split:
    """Read a split, possibly the user's own, or a fold of nnU-Net's; ``names`` are the labelled cases.

    Raises:
        ValueError: if the file is no split, lacks cases for some part, has cases that are not among the names, or
            trains with cases that it validates or tests with.
    """
    expected = f"a JSON file with lists of cases {', '.join(SPLITS)}, or a list of folds as in splits_final.json"
    with reading(path, expected):
        content = json.loads(path.read_text(encoding="utf-8"))
        content = as_mapping(_fold(content, fold) if isinstance(content, list) else content)
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
