"""The cases of a BraTS folder, and what is wrong with them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.datamodules.brats.releases import MODALITIES, RELEASES, ROLES, TRUTH, Release
from src.datamodules.volumes.cases import Case, Problem

ENDINGS = (".nii.gz", ".nii")


def find_cases(folder: Path, release: Release) -> tuple[list[Case], list[Problem]]:
    """Return the cases at any depth below a folder, sorted by name, and the problems of incomplete ones.

    A folder is a case if it has a file whose name ends as the release's files do. The files bear the folder's name.

    Raises:
        ValueError: if there is no case at all; the message says which release the files look like.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected data_dir to be a folder with BraTS {release.name}, which its organisers provide after "
            f"registration, got {folder}, which {'is no folder' if folder.exists() else 'does not exist'}. "
            "datamodule=brats_demo makes a synthetic set"
        )
    found = [_find_files(path, names, release) for path, names in _case_folders(folder, release)]
    if not found:
        example = f"{release.example}/{release.stem(release.example, MODALITIES[0])}.nii[.gz]"
        raise ValueError(
            f"expected a folder of BraTS {release.name} with files such as {example}, got {folder} with "
            f"{_describe(folder)}"
        )
    counts = Counter(name for name, _, _ in found)
    cases, problems = [], []
    for name, files, defects in sorted(found, key=lambda item: item[0]):
        if counts[name] > 1:
            defects.append(Problem(name, name, f"expected one folder of this name, got {counts[name]}"))
        problems += defects
        if not defects:
            cases.append(Case(name, tuple(files[modality] for modality in MODALITIES), files.get(TRUTH)))
    return cases, list(dict.fromkeys(problems))


def _case_folders(folder: Path, release: Release) -> Iterator[tuple[Path, list[str]]]:
    endings = tuple(release.stem("", role) + ending for role in ROLES for ending in ENDINGS)
    for path, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(name.endswith(endings) and not name.startswith(".") for name in names):
            yield Path(path), names


def _find_files(folder: Path, names: Sequence[str], release: Release) -> tuple[str, dict[str, Path], list[Problem]]:
    """Return the name of a folder's case, its files by their role, and what is wrong with them."""
    case = folder.resolve().name if folder.name in ("", "..") else folder.name
    files: dict[str, Path] = {}
    problems = []
    for role in ROLES:
        stem = release.stem(case, role)
        stems = dict.fromkeys((stem, release.renamed.get(stem, stem)))
        present = [s + ending for s in stems for ending in ENDINGS if s + ending in names]
        if len(present) == 1 and (folder / present[0]).is_file():
            files[role] = folder / present[0]
        elif len(present) == 1:
            problems.append(Problem(case, present[0], "expected a file, got a broken link"))
        elif present:
            problems.append(Problem(case, stem, f"expected one file, got {' and '.join(present)}"))
        elif role != TRUTH:
            scans = sorted(name for name in names if name.endswith(ENDINGS))
            message = f"expected this file of modality {role}, got only {', '.join(scans)}"
            problems.append(Problem(case, f"{stem}.nii[.gz]", message))
    return case, files, problems


def _describe(folder: Path) -> str:
    """Say what a folder has instead of the release's cases."""
    others = [release.name for release in RELEASES.values() if any(_case_folders(folder, release))]
    if others:
        return f"files named as in release {' or '.join(others)}"
    scans = [name for _, _, names in os.walk(folder) for name in names if name.endswith(ENDINGS)]
    return f"other NIfTI files, such as {min(scans)}" if scans else "no NIfTI file"
