"""A small synthetic set in the layout of BraTS 2018, for machines that have none of the real data."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.datamodules.brats.phantom import Phantom, Tumour, make_phantom
from src.datamodules.brats.releases import RELEASES, ROLES
from src.datamodules.cached_files import make_missing, run_parallel, whole_folder
from src.datamodules.demo_folder import demo_folder
from src.datamodules.volumes.labels import to_labels
from src.utils.errors import check_range
from src.utils.nifti import write_volume

# Changes whenever the same parameters would give other scans.
DEMO_VERSION = 1
# The release whose layout and labels the set has.
DEMO_RELEASE = "2018"


@dataclasses.dataclass(frozen=True)
class BratsDemo:
    """Parameters of the set; each case has random numbers of its own, from the seed and its place.

    Args:
        num_cases: how many, of high and low grade together.
        shape: voxels of a scan, 1 mm; the head fills most of it. BraTS has 240×240×155.
        low_grade_fraction: of cases in the folder LGG; every second one of these has no enhancing tumour.
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
        check_range(3, num_cases=self.num_cases)
        check_range(0, 1, low_grade_fraction=self.low_grade_fraction)
        check_range(0, noise=self.noise, bias=self.bias, seed=self.seed)
        object.__setattr__(self, "shape", tuple(self.shape))

    def folder(self, data_dir: Path) -> Path:
        """Return the set's folder, see `demo_folder`."""
        label = f"cases{self.num_cases}-{'x'.join(map(str, self.shape))}"
        return demo_folder(data_dir, label, self._parameters(), "brats", ("*/*.nii*", "*/*/*.nii*"))

    def write(self, folder: Path, num_workers: int) -> None:
        """Write the cases that are missing; raise ValueError if the folder cannot be written."""
        write_case = functools.partial(self._write_case, folder)
        make_missing(
            folder,
            f"makes the scans of {folder}",
            lambda: {i: None for i in range(self.num_cases) if not self._case_folder(folder, i).is_dir()},
            lambda missing: run_parallel(write_case, missing, num_workers, "Making synthetic scans"),
            self._parameters(),
        )

    def _parameters(self) -> dict[str, object]:
        return {"demo_version": DEMO_VERSION, **dataclasses.asdict(self)}

    def _is_low_grade(self, index: int) -> bool:
        return index < round(self.low_grade_fraction * self.num_cases)

    def _case_folder(self, folder: Path, index: int) -> Path:
        return folder / ("LGG" if self._is_low_grade(index) else "HGG") / f"Brats18_DEMO_{index:03d}_1"

    def _write_case(self, folder: Path, index: int) -> None:
        """Make one case and write its files; its folder appears when they are complete."""
        low_grade = self._is_low_grade(index)
        tumour = Tumour(low_grade, enhancing=not low_grade or index % 2 == 1)
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, index)))
        phantom = make_phantom(rng, self.shape, tumour, self.noise, self.bias)
        path = self._case_folder(folder, index)
        with whole_folder(path) as unfinished:
            _write_files(unfinished, path.name, phantom)


def _write_files(folder: Path, case: str, phantom: Phantom) -> None:
    release = RELEASES[DEMO_RELEASE]
    # The affine of BraTS's own files, with 239 for the last of 240 voxels.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = phantom.classes.shape[1] - 1
    labels = to_labels(phantom.classes, release.label_values).astype(np.int16)
    for role, voxels in zip(ROLES, (*phantom.images, labels), strict=True):
        write_volume(folder / f"{release.stem(case, role)}.nii.gz", voxels, affine)
