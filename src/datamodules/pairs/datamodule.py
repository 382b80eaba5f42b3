"""Inputs and targets in the user's own files: found, checked, scaled, cached, and cropped at random to train with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.case_datamodule import CaseDataModule, CaseOptions
from src.datamodules.conversion import Converted
from src.datamodules.groups import check_expression, groups_by_name
from src.datamodules.pairs.cache import IMAGES, CachedPair, Preprocessing, pair_cache
from src.datamodules.pairs.crops import PairCrops, Sample, WholePairs
from src.datamodules.pairs.images import Image, ImageKind, Scaling
from src.datamodules.pairs.pairing import Pair, find_pairs, read_manifest, shown
from src.datamodules.problems import Problem
from src.datamodules.split import HELD_OUT, SPLITS, Split, draw_split, read_split
from src.utils.errors import check_range
from src.utils.image_files import ending_of, without_ending
from src.utils.image_writing import PICTURES, output_name

CHANNEL_AXES = ("auto", "first", "last")
# Of a window of the SSIM; see `src.tasks.image_quality`.
MIN_SIDE = 11


class PairsDataModule(CaseDataModule[Pair]):
    """Pairs of an input and a target in files of many formats; see `src.utils.image_files`.

    Batches are dicts of "input", float32 (B, channels, *spatial), "target", float32 (B, target_channels, *spatial), and
    "index", int64 (B,), the place in the split. Training batches are random crops. The others are one whole image each.

    Args:
        data_dir: the folder of the images.
        inputs, targets: paths in it with one ``*``, which stands for the name of a pair; see `find_pairs`.
        manifest: a CSV file with the pairs in place of a folder; see `read_manifest`.
        input_key, target_key: of the arrays in .npz and HDF5 files; None for the only one.
        spatial_dims: 2 or 3.
        channels, target_channels: of the images.
        channel_axis: ``first`` | ``last`` | ``auto``; see `ImageKind`.
        window, target_window, percentiles: the intensities that become 0 and 1; see `Scaling`.
        size: pixels or voxels of a training crop along each axis, or one number for all axes.
        pad: put an image that is smaller than a crop between zeros; false counts it as a problem.
        crops_per_pair: in an epoch.
        augment: flip training crops along each axis with probability 1/2.
        val_fraction, test_fraction: of the pairs, unless a manifest, subfolders or a file split them. With a
            test_fraction of 0, the pairs that choose the checkpoint are the test too. Of subfolders or a manifest with
            train and without val, val is drawn from train.
        group: a regular expression that finds the patient in the name of a pair, such as ``(.+)_[0-9]+``: its first
            group, or the whole match if it has none. A split that is drawn divides no patient. None: each pair is one.
        seed: of the split. The order of pairs and crops follow the seed of the run.
        split_file: lists of names in JSON, {"train": [...], "val": [...], "test": [...]}.
        skip_bad_cases: leave out pairs that are incomplete or invalid.
        cache_dir: where the checked and scaled images go, uncompressed.
        batch_size: of training.
        num_workers, pin_memory: of the data loaders.
        preprocessing_workers: processes that check and scale; None for one per CPU, 0 to work in this process.

    Attributes:
        sample_shape, target_shape: of a training crop, (C, *spatial).
        data_range: 1, of the scaled targets.
        cases: after setup, the pairs of "train", "val" and "test".

    Raises:
        ValueError: an argument is out of its range.
    """

    data_range = 1.0
    member = "pair"

    def __init__(
        self,
        data_dir: str = "data/pairs",
        inputs: str = "input/*",
        targets: str = "target/*",
        manifest: str | None = None,
        input_key: str | None = None,
        target_key: str | None = None,
        spatial_dims: int = 3,
        channels: int = 1,
        target_channels: int = 1,
        channel_axis: str = "auto",
        window: Sequence[float] | None = None,
        target_window: Sequence[float] | None = None,
        percentiles: Sequence[float] = (0.5, 99.5),
        size: int | Sequence[int] = 32,
        pad: bool = False,
        crops_per_pair: int = 1,
        augment: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        group: str | None = None,
        seed: int = 0,
        split_file: str | None = None,
        skip_bad_cases: bool = False,
        cache_dir: str = "data/pairs_cache",
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        preprocessing_workers: int | None = None,
    ) -> None:
        super().__init__(
            Path(data_dir if manifest is None else manifest),
            CaseOptions(
                cache_dir, val_fraction, test_fraction, seed, split_file, skip_bad_cases, preprocessing_workers
            ),
            batch_size,
            num_workers,
            pin_memory,
        )
        check_range(2, 3, spatial_dims=spatial_dims)
        check_range(1, channels=channels, target_channels=target_channels, crops_per_pair=crops_per_pair)
        if channel_axis not in CHANNEL_AXES:
            raise ValueError(f"expected channel_axis as one of {', '.join(CHANNEL_AXES)}, got {channel_axis!r}")
        for name, pattern in (("inputs", inputs), ("targets", targets)):
            if pattern.count("*") != 1:
                raise ValueError(f"expected {name} as a path with one *, such as input/*, got {pattern!r}")
        check_expression(group)
        self.size = (size,) * spatial_dims if isinstance(size, int) else tuple(size)
        if len(self.size) != spatial_dims or min(self.size) < 1:
            raise ValueError(f"expected size as one or {spatial_dims} positive numbers, got {size}")
        self.data_dir = Path(data_dir)
        self.patterns = inputs, targets
        self.manifest = None if manifest is None else Path(manifest)
        self.preprocessing = Preprocessing(
            ImageKind(spatial_dims, channels, channel_axis, input_key, "datamodule.channels"),
            ImageKind(spatial_dims, target_channels, channel_axis, target_key, "datamodule.target_channels"),
            Scaling(_window("window", window), _window("target_window", target_window), _percentiles(percentiles)),
        )
        self.sample_shape = (channels, *self.size)
        self.target_shape = (target_channels, *self.size)
        self.pad = pad
        self.crops_per_pair = crops_per_pair
        self.augment = augment
        self.group = group

    def prepare_data(self) -> None:
        """Find, check and scale the images, unless that is done already.

        Raises:
            ValueError: there are bad pairs, and skip_bad_cases is false; the message lists the problems.
        """
        self._prepare()

    def setup(self, stage: str | None = None) -> None:
        """Find the pairs of each part of the split, which `prepare_data` has made; raise ValueError as it does."""
        if not self.cases:
            self.cases = self._prepare()

    def dataset(self, split: str) -> Dataset[Sample]:
        """Return the samples of a split: random crops to train with, otherwise whole images."""
        pairs, channels = self.cases[split], self.sample_shape[0]
        if split != "train":
            return WholePairs(pairs, channels)
        return PairCrops(pairs, channels, self.size, self.crops_per_pair, self.augment)

    def read_input(self, path: Path) -> Image:
        """Read an image to predict, as its file has it; raise ValueError for one that is not like the inputs."""
        return self.preprocessing.input.read(path)

    def prediction_name(self, name: str) -> str:
        """Return the name of a restored image: that of its input, or TIFF where a picture cannot hold the values."""
        same = output_name(name)
        lost = ending_of(same) in PICTURES and not self.preprocessing.scaling.targets_fit_pictures
        return f"{without_ending(same)}.tif" if lost else same

    def convert(self, values: Tensor) -> Converted:
        """Return an input with the values of its file, scaled, and the way back to the values of targets' files."""
        own, target = self.preprocessing.scaling.windows(values.detach().cpu().numpy())
        return Converted(own.scaled(values), target.unscaled)

    def _prepare(self) -> dict[str, list[CachedPair]]:
        """Return the usable pairs of each part of the split. Bad ones are drawn too, so that skipping moves no pair."""
        source = self.held_out.source
        found, problems = find_pairs(source, *self.patterns) if self.manifest is None else read_manifest(source)
        names = sorted({pair.name for pair in found} | {problem.case for problem in problems})
        cache = pair_cache(self.cache_dir, source, self.preprocessing)
        usable, more = cache.prepare(found, self.preprocessing_workers)
        too_small = [problem for cached in usable for problem in self._size_problems(cached)]
        self.report([*problems, *more, *too_small], source)
        bad = {problem.case for problem in too_small}
        usable = [cached for cached in usable if cached.case.name not in bad]
        groups = self._groups(found, names)
        part_of = self._split(found, names, groups)
        split = {part: [name for name in part_of if part in part_of[name]] for part in SPLITS}
        self.check_split(split, {name: groups[name] for name in part_of}, self.split_file or source)
        parts = {part: [cached for cached in usable if part in part_of[cached.case.name]] for part in SPLITS}
        for part, members in parts.items():
            if not members:
                raise ValueError(f"expected usable pairs for {part} in {source}, got none; {self._remedy(part, found)}")
        return parts

    def _size_problems(self, cached: CachedPair) -> list[Problem]:
        spatial = cached.shapes[IMAGES][1:]
        least = [MIN_SIDE if self.pad else side for side in self.size]
        if all(side >= low for side, low in zip(spatial, least, strict=True)):
            return []
        remedy = "" if self.pad else "; a smaller datamodule.size, or datamodule.pad=true, takes it"
        message = f"expected a size of at least {tuple(least)}, got {spatial}{remedy}"
        return [Problem(cached.case.name, shown(cached.case.input), message)]

    def _groups(self, found: Sequence[Pair], names: Sequence[str]) -> dict[str, str]:
        """Return the group of each pair, which is not told by the subfolder of a part: it may be in several."""
        if self.group is None:
            return {name: name for name in names}
        texts = dict(zip(names, names, strict=True))
        texts |= {pair.name: pair.name.removeprefix(f"{pair.part}/") for pair in found}
        groups = groups_by_name(list(texts.values()), self.group)
        return {name: groups[text] for name, text in texts.items()}

    def _split(self, found: Sequence[Pair], names: Sequence[str], groups: Mapping[str, str]) -> dict[str, set[str]]:
        """Return the parts that each pair is in: as the folder or the manifest says, else a file, else at random."""
        given = {pair.name: pair.part for pair in found}
        if any(given.values()) and self.split_file is not None:
            raise ValueError("expected one split, got datamodule.split_file and a split of folders or the manifest")
        parts: dict[str, set[str]] = {name: {part} for name, part in given.items() if part is not None}
        if "val" in given.values():
            if "test" not in given.values():  # the pairs that choose the checkpoint are the test too
                parts = {name: part | {"test"} if "val" in part else part for name, part in parts.items()}
            return parts
        if "test" in given.values():
            training = [name for name, part in given.items() if part == "train"]
            return parts | {name: {"val"} for name in (self._draw(training, 0, groups)["val"] if training else [])}
        if self.split_file is not None:
            split = read_split(self.split_file, names)
        else:
            split = self._draw(names, self.fractions[1], groups)
        return {name: {part for part in SPLITS if name in split[part]} for name in names}

    def _draw(self, names: Sequence[str], test_fraction: float, groups: Mapping[str, str]) -> Split:
        """Return a split, drawn or kept from an earlier draw: a new pair joins its group, or else is for training."""
        split = self.held_out.split(names, groups)
        if split is None:
            split = draw_split(names, self.fractions[0], test_fraction, self.seed, groups)
        self.held_out.keep({part: split[part] for part in HELD_OUT})
        return split

    def _remedy(self, part: str, found: Sequence[Pair]) -> str:
        given = {pair.part for pair in found} - {None}
        if part in given or (given and part == "train"):
            return f"the {'column split' if self.manifest else f'folder {part}'} needs some"
        if self.split_file:
            return f"{self.split_file} needs some"
        return "other fractions or another datamodule.seed give some"


def _window(name: str, window: Sequence[float] | None) -> tuple[float, float] | None:
    if window is None:
        return None
    if len(window) != 2 or not -np.inf < window[0] < window[1] < np.inf:
        raise ValueError(f"expected {name} as two growing numbers, such as [0, 255], got {list(window)}")
    return float(window[0]), float(window[1])


def _percentiles(percentiles: Sequence[float]) -> tuple[float, float]:
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"expected percentiles as two growing numbers from 0 to 100, got {list(percentiles)}")
    return float(percentiles[0]), float(percentiles[1])
