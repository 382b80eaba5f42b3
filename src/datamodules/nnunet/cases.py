"""The cases of imagesTr and labelsTr, or of a folder to predict, and what is wrong with them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.datamodules.nnunet.description import FILE_NAME, Description
from src.datamodules.problems import Problem, no_file, no_folder
from src.datamodules.volumes.cases import Case

IMAGES, LABELS, TEST_IMAGES = "imagesTr", "labelsTr", "imagesTs"
CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")

Files = dict[str, list[Path]]


def find_training_cases(folder: Path, description: Description) -> tuple[list[Case], list[Problem]]:
    """Return the cases of imagesTr and labelsTr, sorted by name, and the problems of incomplete ones.

    Raises:
        ValueError: if there is no case at all.
    """
    for name in (IMAGES, LABELS):
        _require_folder(folder / name, description)
    labels = _files(folder / LABELS, description)
    images = _files(folder / IMAGES, description)
    if not images and not labels:
        raise ValueError(f"expected images with the ending {_endings(description)} in {folder / IMAGES}, got none")
    cases, problems = _find_cases(images, description, labels)
    known = {case.name for case in cases} | {problem.case for problem in problems}
    for name in sorted((set(labels) | set(description.listed)) - known):
        source = f"{LABELS}/{labels[name][0].name}" if name in labels else FILE_NAME
        problems.append(Problem(name, f"{IMAGES}/{name}", f"expected this image, which {source} asks for, got none"))
    return cases, problems


def find_cases_to_predict(folder: Path, description: Description) -> tuple[list[Case], list[Problem]]:
    """Return the cases of a folder of images, sorted by name, and the problems of incomplete ones.

    Raises:
        ValueError: if there is no case at all.
    """
    _require_folder(folder, description)
    images = _files(folder, description)
    if not images:
        raise ValueError(f"expected images with the ending {_endings(description)} in {folder}, got none")
    return _find_cases(images, description, None)


def _require_folder(folder: Path, description: Description) -> None:
    if not folder.is_dir():
        raise ValueError(f"expected a folder of files with the ending {_endings(description)}, got {no_folder(folder)}")


def _endings(description: Description) -> str:
    return " or ".join(description.endings)


def _files(folder: Path, description: Description) -> Files:
    """Return the files of a folder by their names without ending; not those that macOS writes beside them."""
    found: Files = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in description.endings if path.name.endswith(ending)), None)
        if ending is not None and not path.name.startswith("."):
            found.setdefault(path.name.removesuffix(ending), []).append(path)
    return found


def _find_cases(
    images: Files, description: Description, labels: Mapping[str, list[Path]] | None
) -> tuple[list[Case], list[Problem]]:
    """Sort the files of images into cases; without ``labels`` a case has no truth."""
    # Names such as "liver_0012" of the Decathlon end as a channel does.
    in_channels = any(stem.endswith("_0000") for stem in images)
    by_case: dict[str, dict[str, list[Path]]] = {}
    for stem, paths in images.items():
        match = CHANNEL.fullmatch(stem)
        if match and in_channels and stem not in (labels or {}):
            by_case.setdefault(match["case"], {})[match["channel"]] = paths
        else:
            by_case.setdefault(stem, {})[""] = paths
    cases, problems = [], []
    for name, channels in sorted(by_case.items()):
        files, defects = _images_of(name, channels, description)
        truth = None
        if labels is not None:
            truth, more = _truth_of(name, labels.get(name, []), description)
            defects += more
        problems += defects
        if not defects:
            cases.append(Case(name, tuple(files), truth))
    return cases, problems


def _images_of(
    name: str, channels: Mapping[str, Sequence[Path]], description: Description
) -> tuple[list[Path], list[Problem]]:
    problems = [_ambiguous(name, paths) for paths in channels.values() if len(paths) > 1]
    files = [paths[0] for paths in channels.values()]
    problems += [Problem(name, path.name, no_file(path)) for path in files if not path.is_file()]
    if "" in channels:
        if len(channels) > 1:
            listed = ", ".join(path.name for path in files)
            problems.append(Problem(name, name, f"expected one file or one file per channel, got {listed}"))
        return files, problems
    expected = {f"{index:04d}": channel for index, channel in enumerate(description.channels)}
    for number, channel in expected.items():
        if number not in channels:
            file = f"{name}_{number}{description.endings[0]}"
            problems.append(Problem(name, file, f"expected this file of channel {number} ({channel}), got none"))
    for number in sorted(set(channels) - set(expected)):
        message = f"expected channels up to {len(expected) - 1:04d}, as {FILE_NAME} names {len(expected)}"
        problems.append(Problem(name, channels[number][0].name, message))
    return [channels[number][0] for number in sorted(channels)], problems


def _truth_of(name: str, paths: Sequence[Path], description: Description) -> tuple[Path | None, list[Problem]]:
    if not paths:
        file = f"{LABELS}/{name}{description.endings[0]}"
        return None, [Problem(name, file, f"expected this file; cases without labels belong to {TEST_IMAGES}")]
    if len(paths) > 1:
        return None, [_ambiguous(name, paths)]
    if not paths[0].is_file():
        return None, [Problem(name, f"{LABELS}/{paths[0].name}", no_file(paths[0]))]
    return paths[0], []


def _ambiguous(name: str, paths: Sequence[Path]) -> Problem:
    return Problem(name, paths[0].parent.name, f"expected one file, got {' and '.join(path.name for path in paths)}")
