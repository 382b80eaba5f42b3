"""A small synthetic set in nnU-Net's raw format or that of the Medical Segmentation Decathlon."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.datamodules.brats.phantom import Tumour, make_phantom
from src.datamodules.brats.releases import ED, ET, MODALITIES, NCR
from src.datamodules.cached_files import make_missing, run_parallel
from src.datamodules.demo_folder import demo_folder
from src.datamodules.nnunet.cases import IMAGES, LABELS, TEST_IMAGES
from src.datamodules.nnunet.description import FILE_NAME
from src.utils.errors import check_range
from src.utils.files import write_text
from src.utils.nifti import write_volume

# Changes whenever the same parameters would give other files.
DEMO_VERSION = 1
CHANNELS = ("T1ce", "FLAIR")
# The tumour's classes, each a union of those of the phantom.
LABELS_OF = {1: (ED,), 2: (NCR, ET)}
CLASS_NAMES = ("background", "edema", "core")
CLASSES = {"labels": {name: value for value, name in enumerate(CLASS_NAMES)}}
REGIONS = {"labels": {"background": 0, "tumour": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
FORMATS = ("nnunet", "msd")


@dataclasses.dataclass(frozen=True)
class NnunetDemo:
    """Tumours in synthetic heads: two modalities, three classes, volumes of several sizes and spacings.

    Args:
        num_cases: how many have labels.
        num_test: how many have none.
        shape: voxels of the largest scan.
        format: ``nnunet``, one file per channel, or ``msd``, one file with all channels.
        regions: whether dataset.json has the regions "tumour" and "core" instead of classes (``nnunet`` only).
        noise: standard deviation of the Rician noise, in units of white matter's intensity in T1.
        seed: of the scans.

    Raises:
        ValueError: a parameter is out of its range.
    """

    num_cases: int = 12
    num_test: int = 2
    shape: Sequence[int] = (44, 50, 38)
    format: Literal["nnunet", "msd"] = "nnunet"
    regions: bool = False
    noise: float = 0.04
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 24:
            raise ValueError(f"expected shape as three numbers of voxels of at least 24, got {list(self.shape)}")
        if self.format not in FORMATS:
            raise ValueError(f"expected format as one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.regions and self.format == "msd":
            raise ValueError("expected format=nnunet with regions=true, got format=msd, which has no regions")
        check_range(2, num_cases=self.num_cases)
        check_range(0, num_test=self.num_test, noise=self.noise, seed=self.seed)
        object.__setattr__(self, "shape", tuple(self.shape))

    def folder(self, data_dir: Path) -> Path:
        """Return the set's folder, see `demo_folder`."""
        parameters = {"demo_version": DEMO_VERSION, **dataclasses.asdict(self)}
        return demo_folder(data_dir, f"{self.format}-cases{self.num_cases}", parameters, "nnunet", (FILE_NAME,))

    def description(self) -> dict[str, Any]:
        """Return the content of dataset.json."""
        channels = {str(index): name for index, name in enumerate(CHANNELS)}
        if self.format == "nnunet":
            head = {"channel_names": channels, **(REGIONS if self.regions else CLASSES)}
            return {**head, "numTraining": self.num_cases, "file_ending": ".nii.gz"}
        names = [f"{self._name(index)}.nii.gz" for index in range(self.num_cases + self.num_test)]
        training, test = names[: self.num_cases], names[self.num_cases :]
        return {
            "name": "demo",
            "tensorImageSize": "4D",
            "modality": channels,
            "labels": {str(value): name for value, name in enumerate(CLASS_NAMES)},
            "numTraining": self.num_cases,
            "numTest": self.num_test,
            "training": [{"image": f"./{IMAGES}/{name}", "label": f"./{LABELS}/{name}"} for name in training],
            "test": [f"./{TEST_IMAGES}/{name}" for name in test],
        }

    def write(self, folder: Path, num_workers: int) -> None:
        """Write the cases that are missing, and then dataset.json; raise ValueError if the folder cannot be written."""
        make_missing(
            folder,
            f"makes the scans of {folder}",
            lambda: self._missing(folder),
            lambda missing: run_parallel(
                functools.partial(self._write, folder), missing, num_workers, "Making synthetic scans"
            ),
        )

    def _missing(self, folder: Path) -> dict[int, None]:
        """Return the numbers of the cases to write; that after the last one is dataset.json."""
        total = self.num_cases + self.num_test
        missing = [i for i in range(total) if not self._last_file(folder, i).is_file()]
        return dict.fromkeys([*missing, *([] if (folder / FILE_NAME).is_file() else [total])])

    def _name(self, index: int) -> str:
        return f"demo_{index:03d}"

    def _image_file(self, folder: Path, index: int, channel: int) -> Path:
        part = IMAGES if index < self.num_cases else TEST_IMAGES
        number = f"_{channel:04d}" if self.format == "nnunet" else ""
        return folder / part / f"{self._name(index)}{number}.nii.gz"

    def _last_file(self, folder: Path, index: int) -> Path:
        if index < self.num_cases:
            return folder / LABELS / f"{self._name(index)}.nii.gz"
        return self._image_file(folder, index, len(CHANNELS) - 1)

    def _write(self, folder: Path, index: int) -> None:
        if index == self.num_cases + self.num_test:
            write_text(folder / FILE_NAME, json.dumps(self.description(), indent=2))
            return
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, index)))
        shape = [n - int(rng.integers(0, 4)) for n in self.shape]
        # The same heads in voxels of several sizes.
        affine = np.diag([*(np.round(44 / np.array(self.shape) * rng.uniform(0.9, 1.1, 3), 2)), 1.0])
        phantom = make_phantom(rng, shape, Tumour(False, enhancing=True), self.noise, 0.1)
        images = [phantom.images[MODALITIES.index(name.lower())] for name in CHANNELS]
        if self.format == "msd":
            write_volume(self._image_file(folder, index, 0), np.stack(images, axis=-1), affine)
        else:
            for channel, image in enumerate(images):
                write_volume(self._image_file(folder, index, channel), image, affine)
        if index < self.num_cases:
            labels = np.zeros(shape, np.uint8)
            for value, classes in LABELS_OF.items():
                labels[np.isin(phantom.classes, classes)] = value
            write_volume(self._last_file(folder, index), labels, affine)
