"""The cases of a BraTS folder, and what is wrong with them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from src.datamodules.brats.releases import MODALITIES, OFFICIAL, ROLES, TRUTH, Release
from src.datamodules.problems import Problem, no_file, no_folder
from src.datamodules.volumes.cases import Case
from src.utils.nifti import read_volume

ENDINGS = (".nii.gz", ".nii")


def find_cases(folder: Path, release: Release) -> tuple[list[Case], list[Problem]]:
    """Return the cases at any depth below a folder, sorted by name, and the problems of incomplete ones.

    A folder is a case if it has a file whose name ends as the release's files do. The files bear the folder's name;
    upper and lower case are the same. A file may lie, under any name, in a folder of its own name.

    Raises:
        ValueError: if there is no case at all; the message says which release the files look like.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected data_dir to be a folder with BraTS {release.name}, which its organisers provide after "
            f"registration, got {no_folder(folder)}. datamodule=brats_demo makes a synthetic set"
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
    """Yield the folders of cases with the names of their scans, which are files or folders that hold one file."""
    endings = tuple(release.stem("", role) + ending for role in ROLES for ending in ENDINGS)
    for path, folders, names in os.walk(folder, followlinks=True):
        scans = [name for name in (*names, *folders) if _is_scan(name)]
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_scan(name)]
        if any(name.lower().endswith(endings) for name in scans):
            yield Path(path), scans


def _is_scan(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def _find_files(folder: Path, names: Sequence[str], release: Release) -> tuple[str, dict[str, Path], list[Problem]]:
    """Return the name of a folder's case, its files by their role, and what is wrong with them."""
    case = folder.resolve().name if folder.name in ("", "..") else folder.name
    files: dict[str, Path] = {}
    problems = []
    for role in ROLES:
        stem = release.stem(case, role)
        stems = [name.lower() for name in dict.fromkeys((stem, release.renamed.get(stem, stem)))]
        present = [name for s in stems for name in names if name.lower() in (s + ending for ending in ENDINGS)]
        try:
            if present:
                files[role] = _one_of([_file_of(folder / name) for name in present])
            elif role != TRUTH:
                raise ValueError(f"expected this file of modality {role}, got only {', '.join(sorted(names))}")
        except ValueError as error:
            problems.append(Problem(case, present[0] if len(present) == 1 else f"{stem}.nii[.gz]", str(error)))
    return case, files, problems


def _file_of(path: Path) -> Path:
    """Return a scan's file, which in some copies lies in a folder of the file's name; raise ValueError without one."""
    if path.is_dir():
        inner = sorted(file for file in path.iterdir() if _is_scan(file.name))
        if len(inner) != 1 or not inner[0].is_file():
            listed = ", ".join(file.name for file in inner) or "none"
            raise ValueError(f"expected one NIfTI file in this folder, got {listed}")
        return inner[0]
    if not path.is_file():
        raise ValueError(no_file(path))
    return path


def _one_of(paths: Sequence[Path]) -> Path:
    """Return the first of several copies of a volume; raise ValueError if they differ."""
    first = paths[0]
    for other in paths[1:]:
        if not np.array_equal(read_volume(first).voxels, read_volume(other).voxels):
            raise ValueError(f"expected one file or equal copies, got {first.name} and {other.name}, which differ")
    return first


def _describe(folder: Path) -> str:
    """Say what a folder has instead of the release's cases."""
    others = [release.name for release in OFFICIAL if any(_case_folders(folder, release))]
    if others:
        return f"files named as in release {' or '.join(others)}"
    scans = [name for _, _, names in os.walk(folder) for name in names if _is_scan(name)]
    return f"other NIfTI files, such as {min(scans)}" if scans else "no NIfTI file"
