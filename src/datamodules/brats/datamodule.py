"""BraTS: brain tumours in MR scans of four modalities, in the layouts of its releases."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from src.datamodules.brats.cache import brats_cache, z_score
from src.datamodules.brats.cases import find_cases
from src.datamodules.brats.demo import DEMO_RELEASE, BratsDemo
from src.datamodules.brats.predictions import write_prediction
from src.datamodules.brats.releases import CLASS_NAMES, MODALITIES, find_release
from src.datamodules.case_datamodule import CaseOptions
from src.datamodules.conversion import Converted
from src.datamodules.problems import enumerated
from src.datamodules.volumes.box import as_index, used_box
from src.datamodules.volumes.cases import CachedScan, ScanCache
from src.datamodules.volumes.crops import Augmentation, CropOptions
from src.datamodules.volumes.datamodule import Found, SegmentationDataModule
from src.utils.errors import check_range


class BratsDataModule(SegmentationDataModule):
    """Scans of BraTS with their tumours, checked, cropped to the brain and z-scored once, and cached.

    Batches are dicts of "image", float32 (B, 4, X, Y, Z), the MODALITIES, each with mean 0 and deviation 1 over its
    voxels that are not 0; "label", int64 (B, X, Y, Z), classes 0 background, 1 necrosis and non-enhancing core,
    2 edema, 3 enhancing tumour and, in 2024 only, 4 resection cavity, whatever their values in the release; "index",
    int64 (B,), the place in the split. Training batches are random crops. The others are one whole brain each, and
    those for prediction have no label.

    Args:
        data_dir: the folder of the scans; cases are found at any depth. Cases without truth are for prediction only.
        release: the year, 2017 to 2021, 2023 or 2024: how files are named, and what the values of the truth mean;
            "2017-et3" to "2021-et3" if the truth has 3 where the organisers have 4, as in preprocessed copies.
        predict_dir: the scans to predict; None for data_dir.
        cache_dir: where the preprocessed scans go, uncompressed: about 55 MB for one of 240×240×155 voxels.
        size: voxels of a training crop along each axis.
        tumour_probability: how often a crop is centred at a voxel of a tumour class; see `draw_crop`.
        augment: flip training crops and change their intensities.
        intensity_scale, intensity_shift, noise_std: by how much; see `Augmentation`.
        val_fraction, test_fraction: of the labelled cases. The paper has 0.09 and, as there is no public truth for a
            test set, 0.0, which tests with the validation cases that also choose the checkpoint. All scans of a patient
            are in one part.
        seed: of the split. The order of cases, crops and augmentation follow the seed of the run.
        split_file: of the split; a file that exists is read, whatever the fractions. None for a file in the cache.
        skip_bad_cases: leave out incomplete and invalid cases.
        batch_size: of training.
        num_workers, pin_memory: of the data loaders.
        preprocessing_workers: processes that check and preprocess; None for one per CPU, 0 to work in this process.
        demo: a synthetic set, which is written below data_dir and used.

    Attributes:
        sample_shape: (4, X, Y, Z), of a training crop.
        num_classes, class_names: the background is the first class.
        regions: the classes of each region that is scored, in the order of the paper's table.
        label_values: the value of each class in the release's files.
        cases: after setup, the cases of "train", "val", "test" or "predict".

    Raises:
        ValueError: an argument is out of its range.
    """

    modalities = MODALITIES

    def __init__(
        self,
        data_dir: str = "data/brats",
        release: int | str = 2018,
        predict_dir: str | None = None,
        cache_dir: str = "data/brats_cache",
        size: Sequence[int] = (160, 192, 128),
        tumour_probability: float = 0.5,
        augment: bool = True,
        intensity_scale: float = 0.1,
        intensity_shift: float = 0.1,
        noise_std: float = 0.0,
        val_fraction: float = 0.09,
        test_fraction: float = 0.09,
        seed: int = 0,
        split_file: str | None = None,
        skip_bad_cases: bool = False,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        preprocessing_workers: int | None = None,
        demo: BratsDemo | None = None,
    ) -> None:
        self.release = find_release(release)
        check_range(0, 1, tumour_probability=tumour_probability)
        if demo is not None and self.release.name != DEMO_RELEASE:
            raise ValueError(f"expected release {DEMO_RELEASE}, the layout of the demo, got {release}")
        super().__init__(
            data_dir,
            predict_dir,
            CropOptions(
                tuple(size),
                tumour_probability,
                Augmentation(intensity_scale, intensity_shift, noise_std) if augment else None,
            ),
            CaseOptions(
                cache_dir, val_fraction, test_fraction, seed, split_file, skip_bad_cases, preprocessing_workers
            ),
            batch_size,
            num_workers,
            pin_memory,
            demo,
        )
        self.kind = f"BraTS {self.release.name}"
        self.label_values = dict(self.release.label_values)
        self.regions = dict(self.release.regions)
        self.class_names = CLASS_NAMES[: self.num_classes]

    def find_labelled(self) -> Found:
        """Return the cases of data_dir at any depth, and the problems of incomplete ones."""
        return find_cases(self.data_dir, self.release)

    def find_unlabelled(self) -> Found:
        """Return the cases of predict_dir, by default data_dir, at any depth, and the problems of incomplete ones."""
        return find_cases(self.predict_dir or self.data_dir, self.release)

    def cache_of(self, folder: Path) -> ScanCache:
        """Return the cache of a folder's scans."""
        return brats_cache(self.cache_dir, folder, self.release)

    def groups(self, names: Sequence[str]) -> dict[str, str]:
        """Return the patient of each case."""
        return {name: self.release.patient(name) for name in names}

    def convert(self, values: Tensor) -> Converted:
        """Return the z-scored box of the brain of a scan (4, X, Y, Z), and the way back to labels (X, Y, Z).

        For gradients, mean and deviation are constants.

        Raises:
            ValueError: for a scan of zeros only.
        """
        used = (values != 0).any(dim=0)
        if not used.any():
            raise ValueError("expected a brain, got zeros only")
        part = as_index(used_box(used.cpu().numpy()))
        brains = torch.stack([torch.as_tensor(z_score(channel.clone())) for channel in values[(slice(None), *part)]])
        labels = torch.tensor([self.label_values[index] for index in range(self.num_classes)], device=values.device)

        def undo(classes: Tensor) -> Tensor:
            whole = torch.zeros(used.shape, dtype=labels.dtype, device=labels.device)
            whole[part] = labels[classes]
            return whole

        return Converted(brains, undo)

    def note_oddities(self, cases: Sequence[CachedScan]) -> None:
        """Warn of scans whose background is not 0."""
        oddities = [": ".join(oddity) for cached in cases for oddity in cached.facts["oddities"]]
        if oddities:
            listing = enumerated(oddities, separator="\n  ")
            self.note(
                f"The background of {len(oddities)} scans is not 0, and their z-scores include it. BraTS has 0 outside "
                f"of the brain.\n  {listing}"
            )

    def save_prediction(self, index: int, label: Tensor, folder: Path) -> Path:
        """Write the classes (X, Y, Z) of a batch, with its "index", as labels to ``<folder>/<case>.nii.gz``.

        Raises:
            ValueError: if the shape is not the batch's, or a class is not the release's.
        """
        return write_prediction(self.cases["predict"][int(index)], label, self.release, folder)
