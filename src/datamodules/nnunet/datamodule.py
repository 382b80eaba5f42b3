"""nnU-Net's raw format and that of the Medical Segmentation Decathlon: any modalities, any classes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from src.datamodules.case_datamodule import CaseOptions
from src.datamodules.groups import check_expression
from src.datamodules.nnunet.cases import TEST_IMAGES, find_cases_to_predict, find_training_cases
from src.datamodules.nnunet.demo import NnunetDemo
from src.datamodules.nnunet.description import FILE_NAME, Description, parse_description, read_description
from src.datamodules.nnunet.fingerprint import Fingerprint, fingerprint_cache, summarise
from src.datamodules.nnunet.predictions import write_prediction
from src.datamodules.nnunet.preprocessing import Preprocessing, normalisations_of, preprocessing_cache
from src.datamodules.problems import Problem
from src.datamodules.volumes.cases import CachedScan, Case, ScanCache
from src.datamodules.volumes.crops import Augmentation, CropOptions
from src.datamodules.volumes.datamodule import Found, SegmentationDataModule
from src.utils.errors import check_range
from src.utils.files import write_text
from src.utils.reading import reading

FINGERPRINT_FILE = "fingerprint.json"
MEDIAN = "median"


class NnunetDataModule(SegmentationDataModule):
    """Volumes with classes, checked, cut to what is not 0, normalised by modality and resampled once, and cached.

    `SegmentationDataModule` describes the batches. The set is a folder with dataset.json of version 1 or 2, imagesTr,
    labelsTr and, to predict, imagesTs. A case is one file per channel (``<case>_0000.nii.gz``, …) or one file with all
    channels as its fourth dimension.

    Args:
        data_dir: the folder of the set.
        predict_dir: a folder of images to predict; None for imagesTs.
        cache_dir: where the preprocessed cases go, uncompressed.
        channels, num_classes: of the network, the background included; they are compared with dataset.json.
        spacing: sides of a voxel in mm, to which all cases are resampled; ``median`` for the median of the training
            set; None to keep the files' own, which must agree then.
        normalisation: of each channel, ``z_score``, ``ct``, ``unit``, ``rgb`` or ``none`` (see `normalise`); None to
            choose it by the channels' names as nnU-Net does: CT is clipped and z-scored with the foreground of the
            training set, anything else is z-scored case by case.
        fingerprint_file: fingerprint.json of the training set, to predict where the training set is not with a
            checkpoint that has none; None to measure the training set.
        size: voxels of a training crop along each axis.
        foreground_probability: how often a crop is centred at a voxel that is not background; see `draw_crop`.
        augment: flip training crops and change their intensities.
        intensity_scale, intensity_shift, noise_std: by how much; see `Augmentation`.
        val_fraction, test_fraction: of the labelled cases; with a test_fraction of 0, the validation cases are tested.
        group: a regular expression that finds the patient in the name of a case, such as ``(.+)_[0-9]+``: its first
            group, or the whole match if it has none. A split that is drawn divides no patient. None: each case is one.
        seed: of the split.
        split_file: of the split; a file that exists is read, whatever the fractions. None for a file in the cache.
        fold: of a split_file such as nnU-Net's splits_final.json, which has several.
        skip_bad_cases: leave out incomplete and invalid cases.
        batch_size: of training.
        num_workers, pin_memory: of the data loaders.
        preprocessing_workers: processes that check and preprocess; None for one per CPU, 0 to work in this process.
        demo: a synthetic set, which is written below data_dir and used.

    Attributes:
        fingerprint: by which all cases are preprocessed: that of the checkpoint, or of the training set after it has
            been measured; None before.

    Raises:
        ValueError: an argument is out of its range, or dataset.json is missing or has problems.
    """

    kind = "nnU-Net's format"

    def __init__(
        self,
        data_dir: str = "data/nnunet",
        predict_dir: str | None = None,
        cache_dir: str = "data/nnunet_cache",
        channels: int | None = None,
        num_classes: int | None = None,
        spacing: str | Sequence[float] | None = MEDIAN,
        normalisation: Sequence[str] | None = None,
        fingerprint_file: str | None = None,
        size: Sequence[int] = (64, 64, 64),
        foreground_probability: float = 0.5,
        augment: bool = True,
        intensity_scale: float = 0.1,
        intensity_shift: float = 0.1,
        noise_std: float = 0.0,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        group: str | None = None,
        seed: int = 0,
        split_file: str | None = None,
        fold: int = 0,
        skip_bad_cases: bool = False,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        preprocessing_workers: int | None = None,
        demo: NnunetDemo | None = None,
    ) -> None:
        super().__init__(
            data_dir,
            predict_dir,
            CropOptions(
                tuple(size),
                foreground_probability,
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
        check_range(0, 1, foreground_probability=foreground_probability)
        check_range(0, fold=fold)
        check_expression(group)
        self.fold = fold
        self.group = group
        self.spacing = _checked_spacing(spacing)
        self.fingerprint_file = None if fingerprint_file is None else Path(fingerprint_file)
        self.fingerprint: Fingerprint | None = None
        self.description = self._describe(demo)
        self.chooses_normalisations = normalisation is None
        self.normalisations = normalisations_of(self.description, normalisation)
        self.modalities = self.description.channels
        self.class_names = self.description.class_names
        self.regions = dict(self.description.regions)
        self.label_values = dict(self.description.label_values)
        self._check_sizes(channels, num_classes)

    def find_labelled(self) -> Found:
        """Return the cases of imagesTr and labelsTr, and the problems of incomplete ones."""
        return find_training_cases(self.data_dir, self.description)

    def find_unlabelled(self) -> Found:
        """Return the cases of predict_dir, by default imagesTs, and the problems of incomplete ones."""
        return find_cases_to_predict(self.predict_dir or self.data_dir / TEST_IMAGES, self.description)

    def cache_of(self, folder: Path) -> ScanCache:
        """Return the cache of a folder's cases, after the training set has been measured."""
        preprocessing = self._preprocessing(self.fingerprint or self._known_fingerprint())
        return preprocessing_cache(self.cache_dir, folder, self.description, preprocessing)

    def preprocess(self, cases: Sequence[Case]) -> tuple[list[CachedScan], list[Problem]]:
        """Measure the training set, unless a checkpoint has told its fingerprint, then preprocess its usable cases."""
        problems: list[Problem] = []
        if self.fingerprint is None:
            cases, problems = self._measure(cases)
        if self.fingerprint is None:
            return [], problems
        usable, more = self.cache_of(self.data_dir).prepare(cases, self.preprocessing_workers)
        return usable, [*problems, *more]

    def state_dict(self) -> dict[str, Any]:
        """Return the split, and by what cases are preprocessed: the fingerprint and each channel's normalisation."""
        if self.fingerprint is None:
            return {}
        measured = {"fingerprint": json.loads(self.fingerprint.json()), "normalisations": list(self.normalisations)}
        return {**measured, **super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; a ``normalisation`` that was chosen counts.

        Raises:
            ValueError: if it is of other channels.
        """
        with reading("checkpoint", f"a fingerprint of {len(self.modalities)} channels"):
            self.fingerprint = Fingerprint.of(state_dict["fingerprint"], len(self.modalities))
            if self.chooses_normalisations:
                self.normalisations = normalisations_of(self.description, state_dict["normalisations"])
        super().load_state_dict(state_dict)

    def split_folder(self) -> Path:
        """Return a folder that does not depend on the fingerprint: a case more does not hide an earlier split."""
        return self._measuring().folder

    def save_prediction(self, index: int, label: Tensor, folder: Path) -> Path:
        """Write the classes (X, Y, Z) of a batch, with its "index", as labels of the case in its own geometry.

        Raises:
            ValueError: if the shape is not the batch's, or a class is not the set's.
        """
        return write_prediction(self.cases["predict"][int(index)], label, self.description, folder)

    def _describe(self, demo: NnunetDemo | None) -> Description:
        if demo is not None:
            return parse_description(demo.description(), FILE_NAME)
        path = self.data_dir / FILE_NAME
        if not path.is_file():
            raise ValueError(
                f"expected data_dir to be a folder with {FILE_NAME}, imagesTr and labelsTr, got {self.data_dir}, which "
                f"{'has no such file' if self.data_dir.is_dir() else 'is no folder'}. "
                "datamodule=nnunet_demo makes a synthetic set"
            )
        return read_description(path)

    def _check_sizes(self, channels: int | None, num_classes: int | None) -> None:
        """Compare the network's channels and classes with dataset.json."""
        expected = len(self.modalities), self.num_classes
        found = channels or expected[0], num_classes or expected[1]
        if found != expected:
            raise ValueError(
                f"expected image.channels={expected[0]} image.num_classes={expected[1]}, as {FILE_NAME} names the "
                f"channels {', '.join(self.modalities)} and the classes {', '.join(self.class_names)}, got "
                f"image.channels={found[0]} image.num_classes={found[1]}"
            )

    def _measuring(self) -> ScanCache:
        return fingerprint_cache(self.cache_dir, self.data_dir, self.description)

    def _own_fingerprint(self) -> Path:
        return self._measuring().folder / FINGERPRINT_FILE

    def _measure(self, cases: Sequence[Case]) -> tuple[list[Case], list[Problem]]:
        """Return the usable cases and the problems of the others; if these may be left out, ``fingerprint`` is set."""
        measured, problems = self._measuring().prepare(cases, self.preprocessing_workers)
        if not measured:
            return [], problems
        fingerprint = summarise(measured)
        if not self._own_fingerprint().exists() or self._own_fingerprint().read_text("utf-8") != fingerprint.json():
            write_text(self._own_fingerprint(), fingerprint.json())
        if self.fingerprint_file is not None:
            fingerprint = self._known_fingerprint()
        preprocessing = self._preprocessing(fingerprint)
        fitting = []
        for cached in measured:
            errors = preprocessing.spacing_errors(cached.facts["spacing"])
            problems += [Problem(cached.case.name, cached.case.images[0].name, message) for message in errors]
            fitting += [] if errors else [cached.case]
        if not problems or self.skip_bad_cases:
            self.fingerprint = fingerprint
        return fitting, problems

    def _known_fingerprint(self) -> Fingerprint:
        path = self.fingerprint_file or self._own_fingerprint()
        if not path.is_file():
            raise ValueError(
                f"expected datamodule.fingerprint_file or a training set that has been measured, got no {path}; a "
                f"training run writes it, and it can be copied"
            )
        return Fingerprint.read(path, len(self.modalities))

    def _preprocessing(self, fingerprint: Fingerprint) -> Preprocessing:
        spacing = fingerprint.spacing if self.spacing == MEDIAN else self.spacing
        assert not isinstance(spacing, str)
        return Preprocessing(spacing, self.normalisations, fingerprint)


def _checked_spacing(spacing: str | Sequence[float] | None) -> str | tuple[float, ...] | None:
    if spacing is None or spacing == MEDIAN:
        return MEDIAN if spacing == MEDIAN else None
    if isinstance(spacing, str) or len(spacing) != 3 or not min(spacing) > 0:
        raise ValueError(f"expected spacing as {MEDIAN}, null or three positive numbers in mm, got {spacing!r}")
    return tuple(map(float, spacing))
