"""A small synthetic set in the layout of BraTS 2018, for machines that have none of the real data."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from src.datamodules.brats.cases import TRUTH
from src.datamodules.brats.phantom import Phantom, Tumour, make_phantom
from src.datamodules.brats.releases import MODALITIES, RELEASES
from src.datamodules.cache import exclusive, require_writable, run_parallel
from src.utils.files import TEMPORARY_SUFFIX, atomic_write

# Changes whenever the same parameters would give other scans.
DEMO_VERSION = 1


@dataclasses.dataclass(frozen=True)
class BratsDemo:
    """Parameters of the set; each case has random numbers of its own, from the seed and its place.

    Args:
        num_cases: how many, of high and low grade together.
        shape: voxels of a scan, 1 mm; the head fills most of it. BraTS has 240×240×155.
        low_grade_fraction: of cases in the folder LGG, among them every second has no enhancing tumour.
        noise: standard deviation of the Rician noise, in units of white matter's intensity in T1.
        bias: how far the intensity drifts across a head, as a standard deviation of its logarithm.
        seed: of the scans.

    Raises:
        ValueError: a parameter is out of its range.
    """

    num_cases: int = 40
    shape: Sequence[int] = (48, 56, 40)
    low_grade_fraction: float = 0.25
    noise: float = 0.04
    bias: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 24:
            raise ValueError(f"expected shape as three numbers of voxels of at least 24, got {list(self.shape)}")
        if self.num_cases < 3:
            raise ValueError(f"expected num_cases of at least 3, got {self.num_cases}")
        if not 0 <= self.low_grade_fraction <= 1:
            raise ValueError(f"expected low_grade_fraction from 0 to 1, got {self.low_grade_fraction}")
        for name, value in {"noise": self.noise, "bias": self.bias, "seed": self.seed}.items():
            if value < 0:
                raise ValueError(f"expected {name} of at least 0, got {value}")
        object.__setattr__(self, "shape", tuple(self.shape))

    @property
    def release(self) -> str:
        """The release whose layout and labels the set has."""
        return "2018"

    def folder(self, data_dir: Path) -> Path:
        """Return where the set goes: a folder below ``data_dir`` that is another one whenever a parameter is."""
        text = json.dumps(self._parameters(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return data_dir / f"cases{self.num_cases}-{'x'.join(map(str, self.shape))}-{digest[:12]}"

    def write(self, folder: Path, num_workers: int) -> None:
        """Write the cases that are missing; one process at a time, the others wait and find them.

        Raises:
            ValueError: cases are missing, and the folder cannot be written.
        """
        tasks = self._tasks(folder)
        if all(task.folder.is_dir() for task in tasks):
            return
        require_writable(folder)
        with exclusive(folder / "generation.lock", f"makes the scans of {folder}"):
            for leftover in folder.rglob(f"*{TEMPORARY_SUFFIX}"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            with atomic_write(folder / "parameters.json") as file:
                file.write(json.dumps(self._parameters(), indent=2).encode())
            missing = [task for task in tasks if not task.folder.is_dir()]
            if missing:
                run_parallel(_write_case, missing, num_workers, "Making synthetic scans")

    def _parameters(self) -> dict[str, object]:
        return {"demo_version": DEMO_VERSION, **dataclasses.asdict(self)}

    def _tasks(self, folder: Path) -> list[_DemoTask]:
        num_low = round(self.low_grade_fraction * self.num_cases)
        tasks = []
        for index in range(self.num_cases):
            low_grade = index < num_low
            enhancing = not low_grade or index % 2 == 1
            path = folder / ("LGG" if low_grade else "HGG") / f"Brats18_DEMO_{index:03d}_1"
            tasks.append(_DemoTask(path, self, (self.seed, index), Tumour(low_grade, enhancing)))
        return tasks


class _DemoTask(NamedTuple):
    """One case to write; all that a worker process needs to know."""

    folder: Path
    demo: BratsDemo
    entropy: tuple[int, int]
    tumour: Tumour


def _write_case(task: _DemoTask) -> None:
    """Make one case and write its files; the folder appears when they are complete."""
    rng = np.random.default_rng(np.random.SeedSequence(task.entropy))
    phantom = make_phantom(rng, task.demo.shape, task.tumour, task.demo.noise, task.demo.bias)
    task.folder.parent.mkdir(exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=task.folder.parent, suffix=TEMPORARY_SUFFIX))
    try:
        _write_files(temporary, task.folder.name, phantom)
        temporary.chmod(task.folder.parent.stat().st_mode)  # a temporary folder is its owner's alone
        os.replace(temporary, task.folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_files(folder: Path, case: str, phantom: Phantom) -> None:
    release = RELEASES["2018"]
    # The affine of BraTS's own files, with 239 for the last of 240 voxels.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = phantom.classes.shape[1] - 1
    labels = np.zeros(phantom.classes.shape, np.int16)
    for name, value in release.label_values.items():
        labels[phantom.classes == name] = value
    for role, voxels in (*zip(MODALITIES, phantom.images, strict=True), (TRUTH, labels)):
        image = nib.Nifti1Image(voxels, affine)
        image.header.set_xyzt_units("mm")
        (folder / f"{release.stem(case, role)}.nii.gz").write_bytes(gzip.compress(image.to_bytes(), mtime=0))
