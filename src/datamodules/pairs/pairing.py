"""Which files belong together: by the names that a pattern finds, or by a table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.datamodules.problems import Problem, no_file, no_folder
from src.datamodules.split import SPLITS
from src.utils.files import plain_name
from src.utils.image_files import READERS, image_paths, without_ending
from src.utils.reading import reading

COLUMNS = ("input", "target")
MANIFEST = "a CSV file with the columns input, target and, if wanted, name and split, with commas between them"
MAKE_DEMO = "python -m src.datamodules.pairs.demo <folder> writes a set to try"


class Pair(NamedTuple):
    """The files of an input and its target, and the part of the split that they are in, None if nothing says."""

    name: str
    input: Path
    target: Path
    part: str | None = None

    @property
    def stem(self) -> str:
        """The name without folders and spaces."""
        return plain_name(self.name)

    @property
    def files(self) -> tuple[Path, Path]:
        """Input and target."""
        return self.input, self.target


def shown(path: Path) -> str:
    """Return a file's name with that of its folder, because partners may have the same name."""
    return f"{path.parent.name}/{path.name}"


Found = tuple[list[Pair], list[Problem]]


def find_pairs(folder: Path, inputs: str, targets: str) -> Found:
    """Return the pairs of a folder, sorted by name, and the files without a partner.

    A folder with a subfolder ``train`` is split by its subfolders ``train``, ``val`` and ``test``, of which the others
    need not be there, and each has the patterns' files.

    Args:
        folder: where the patterns begin.
        inputs, targets: paths with one ``*``, such as ``input/*`` or ``*_noisy.nii.gz``. What ``*`` stands for,
            subfolders included, is the name of the pair; without an ending, the pattern finds all image files.

    Raises:
        ValueError: if a folder or all files are missing.
    """
    if not folder.is_dir():
        raise ValueError(f"expected datamodule.data_dir to be a folder of images, got {no_folder(folder)}. {MAKE_DEMO}")
    parts = [part for part in SPLITS if (folder / part).is_dir()] if (folder / SPLITS[0]).is_dir() else [None]
    pairs, problems = [], []
    for part in parts:
        place = folder if part is None else folder / part
        prefix = "" if part is None else f"{part}/"
        found = [_by_name(place, pattern) for pattern in (inputs, targets)]
        for pattern, side in zip((inputs, targets), found, strict=True):
            if not side:
                raise ValueError(
                    f"expected image files ({', '.join(READERS)}) that match {pattern!r} in {place}, got none "
                    "(datamodule.inputs, datamodule.targets)"
                )
        for name in sorted({*found[0], *found[1]}):
            files = [side.get(name, []) for side in found]
            defects = list(_partner_errors(files, (inputs, targets), place))
            problems += [Problem(prefix + name, file, message) for file, message in defects]
            if not defects:
                pairs.append(Pair(prefix + name, files[0][0], files[1][0], part))
    return pairs, problems


def _by_name(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """Return the image files that a pattern finds, by what its ``*`` stands for."""
    before, after = (re.escape(text) for text in pattern.split("*"))
    matcher = re.compile(f"{before}(.+?){after}")
    found: dict[str, list[Path]] = {}
    for path in image_paths(folder):
        relative = path.relative_to(folder).as_posix()
        # The pattern may end with the file's ending or without.
        match = matcher.fullmatch(relative) or matcher.fullmatch(without_ending(relative))
        if match:
            found.setdefault(without_ending(match[1]), []).append(path)
    return found


def _partner_errors(files: list[list[Path]], patterns: tuple[str, str], folder: Path) -> Iterator[tuple[str, str]]:
    for own, others, pattern in ((files[0], files[1], patterns[1]), (files[1], files[0], patterns[0])):
        for path in own[1:]:
            yield shown(path), f"expected one file of this name, got {shown(own[0])} as well; remove one of them"
        for path in own:
            if not path.is_file():
                yield shown(path), no_file(path)
        if own and not others:
            yield shown(own[0]), f"expected a partner that matches {pattern!r} in {folder}, got none"


def read_manifest(path: Path) -> Found:
    """Return the pairs of a CSV file with columns input, target and, if it likes, name and split.

    Paths are relative to the file's folder. A name is that of the input without its ending. A split is train, val or
    test.

    Raises:
        FileError: if it is no such file.
    """
    with reading(path, MANIFEST):
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            rows = list(table)
            columns = table.fieldnames or []
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise ValueError(f"no column {' and '.join(missing)} among {', '.join(columns)}")
        if not rows:
            raise ValueError("no rows")
    pairs, problems = [], []
    names = [row.get("name") or without_ending(row["input"] or "") for row in rows]
    counts = Counter(names)
    for line, (name, row) in enumerate(zip(names, rows, strict=True), start=2):
        defects = [
            (
                row[column] or f"line {line}",
                f"expected a file as {column} in line {line} of {path.name}, got {_instead(path.parent, row[column])}",
            )
            for column in COLUMNS
            if not (row[column] and (path.parent / row[column]).is_file())
        ]
        part = row.get("split") or None
        if "split" in columns and part not in SPLITS:
            defects.append((path.name, f"expected split as one of {', '.join(SPLITS)} in line {line}, got {part!r}"))
        if counts[name] > 1:
            defects.append((path.name, f"expected one line for {name}, got {counts[name]}; give a column name"))
        problems += [Problem(name or f"line {line}", *defect) for defect in defects]
        if not defects:
            pairs.append(Pair(name, path.parent / row["input"], path.parent / row["target"], part))
    return pairs, list(dict.fromkeys(problems))


def _instead(folder: Path, name: str | None) -> str:
    return "a folder" if name and (folder / name).is_dir() else "none"
