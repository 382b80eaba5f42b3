"""Labelled images held in memory, a whole batch taken at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from src.datamodules.conversion import Converted
from src.datamodules.downloads import DataFiles
from src.datamodules.loaders import SplitDataModule
from src.utils.errors import check_range

Batch = dict[str, Tensor]

VALUES = ("unit", "standardised", "integers")


# What comes in from outside an image: places in it for places 0 … 3N−1 in three images side by side, it in the middle.
BORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "nearest": lambda place, size: (place - size).clamp(0, size - 1),
    "symmetric": lambda place, size: torch.cat([torch.arange(size).flip(0), torch.arange(size)] * 2)[place],
}


def random_shift(images: Tensor, max_shift: int, border: str = "zeros") -> Tensor:
    """Shift each image (B, C, H, W) by its own random −max_shift … max_shift pixels along H and W.

    ``border`` is what comes in: ``zeros``, the ``nearest`` pixel, or the mirror image (``symmetric``).
    """
    batch, channels, height, width = images.shape
    top, left = torch.randint(2 * max_shift + 1, (2, batch, 1))
    rows = (top + torch.arange(height))[:, None, :, None]  # (B, 1, H, 1)
    columns = (left + torch.arange(width))[:, None, None, :]  # (B, 1, 1, W)
    if border == "zeros":
        padded = F.pad(images, (max_shift,) * 4)
    else:
        padded = images
        rows, columns = (BORDERS[border](p - max_shift + n, n) for p, n in ((rows, height), (columns, width)))
    return padded[torch.arange(batch).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1), rows, columns]


def random_flip(images: Tensor) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability 1/2."""
    mirrored = torch.randint(2, (len(images), 1, 1, 1), dtype=torch.bool)
    return torch.where(mirrored, images.flip(-1), images)


def network_input(
    images: Tensor,
    values: str,
    mean: Sequence[float],
    std: Sequence[float],
    max_shift: int = 0,
    flips: bool = False,
    border: str = "zeros",
) -> Tensor:
    """Return grey values, uint8 (B, C, H, W), shifted and flipped at random, as float32 `values`."""
    if max_shift:
        images = random_shift(images, max_shift, border)
    if flips:
        images = random_flip(images)
    if values == "integers":
        return images.float()
    unit = images.float() / 255
    if values == "unit":
        return unit
    scale, centre = (torch.tensor(numbers, device=unit.device).view(-1, 1, 1) for numbers in (std, mean))
    return (unit - centre) / scale


@dataclass(eq=False)
class LabelledImages(Dataset[Batch]):
    """Images in memory, uint8 (N, C, H, W), with their labels, int64 (N,).

    ``convert`` makes the network's input, float32 (B, C, H, W), of the grey values of a batch.
    """

    images: Tensor
    labels: Tensor
    convert: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        return {name: values[0] for name, values in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return a whole batch; torch's DataLoader looks for this name."""
        index = torch.tensor(indices)
        return {"image": self.convert(self.images[index]), "label": self.labels[index], "index": index}


class LabelledImageDataModule(SplitDataModule):
    """Labelled images, held in memory.

    Batches are dicts of "image", float32 (B, C, H, W), "label", int64 (B,), and "index", int64 (B,), the place in the
    split. A subclass puts the images of a split into memory with ``keep``.

    Args:
        num_train, num_val, num_test: numbers of images; None for all.
        values: what "image" holds of grey values k = 0 … 255: ``unit`` k / 255; ``standardised`` (k / 255 − mean) / std
            with the MEAN and STD of each channel; ``integers`` k.
        augment: shift each training image by up to ``max_shift`` pixels, and mirror it if ``flips``.
        batch_size, num_workers, pin_memory: of the data loaders.

    Raises:
        ValueError: an argument is out of its range.
    """

    sample_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    MEAN: tuple[float, ...] = ()  # empty where they are not known, which only ``standardised`` minds
    STD: tuple[float, ...] = ()
    max_shift: int
    flips: bool
    border: str = "zeros"

    def __init__(
        self,
        num_train: int | None,
        num_val: int | None,
        num_test: int | None,
        values: str,
        augment: bool,
        batch_size: int,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory)
        check_range(1, num_train=num_train, num_test=num_test)
        check_range(0, num_val=num_val)
        if values not in VALUES:
            raise ValueError(f"expected values as one of {', '.join(VALUES)}, got {values!r}")
        self.num_train = num_train
        self.num_val = num_val
        self.num_test = num_test
        self.values = values
        self.augment = augment

    def keep(self, split: str, images: Tensor, labels: Tensor) -> None:
        """Hold the images, uint8 (N, C, H, W), and labels, int64 (N,), of a split."""
        # No bound methods: worker processes get a copy of the data set, and should not get one of the trainer.
        convert = partial(network_input, values=self.values, mean=self.MEAN, std=self.STD)
        if split == "train" and self.augment:
            convert = partial(convert, max_shift=self.max_shift, flips=self.flips, border=self.border)
        self.sets[split] = LabelledImages(images, labels, convert)

    def convert(self, values: Tensor) -> Converted:
        """Return an image's grey values k = 0 … 255 as the `values` of a network.

        Raises:
            ValueError: for an image of another size or with other values.
        """
        if tuple(values.shape) != tuple(self.sample_shape):
            raise ValueError(f"expected an image of shape {tuple(self.sample_shape)}, got {tuple(values.shape)}")
        if not (values.min() >= 0 and values.max() <= 255):
            raise ValueError(f"expected grey values from 0 to 255, got {values.min():g} to {values.max():g}")
        if values.max() <= 1 and (values % 1 != 0).any():
            raise ValueError("expected grey values from 0 to 255, got fractions up to 1; multiply them by 255")
        if self.values == "standardised" and not (self.MEAN and self.STD):
            raise ValueError("expected datamodule.mean and datamodule.std, or a checkpoint with those of the training")
        return Converted(network_input(values[None], self.values, self.MEAN, self.STD)[0])

    def settings(self, split: str) -> dict[str, Any]:
        """Return the arguments of a split's DataLoader, whose batches the data set has collated."""
        return {**super().settings(split), "collate_fn": _as_it_is}


class ImageDataModule(LabelledImageDataModule):
    """Images of a public data set, with their labels; see `LabelledImageDataModule`.

    The first images of the training file are for training, its last ones for validation.

    Args:
        data_dir: the folder of all data sets, in torchvision's layout.
        num_train, num_val, num_test: numbers of images; None for all the rest of the file.
        values, augment, batch_size, num_workers, pin_memory: see `LabelledImageDataModule`.
        max_shift, flips: what ``augment`` does; None for what suits the data set.
        border: what comes in when an image is shifted: ``zeros``, the ``nearest`` pixel or its mirror image
            (``symmetric``).
        download: fetch files that are missing or damaged.
        verify_checksums: compare the files with their md5 sums; false for your own files in the same format.

    Raises:
        ValueError: an argument is out of its range.
    """

    files_class: type[DataFiles]
    file_sizes: ClassVar[Mapping[str, int]]  # images in the files "train" and "test"

    def __init__(
        self,
        data_dir: str = "data",
        num_train: int | None = None,
        num_val: int | None = 5000,
        num_test: int | None = None,
        values: str = "unit",
        augment: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool = False,
        download: bool = True,
        verify_checksums: bool = True,
        max_shift: int | None = None,
        flips: bool | None = None,
        border: str = "zeros",
    ) -> None:
        super().__init__(num_train, num_val, num_test, values, augment, batch_size, num_workers, pin_memory)
        check_range(0, max_shift=max_shift)
        if border not in ("zeros", *BORDERS):
            raise ValueError(f"expected border as one of zeros, {', '.join(BORDERS)}, got {border!r}")
        self.max_shift = type(self).max_shift if max_shift is None else max_shift
        self.flips = type(self).flips if flips is None else flips
        self.border = border
        if num_train is None and num_val is None:
            raise ValueError("expected num_train or num_val as a number, got None for both")
        self.download = download
        self.num_classes = len(self.class_names)
        self.files = self.files_class(data_dir, verify_checksums)
        if verify_checksums:  # only then the sizes are known
            for file, size in self.file_sizes.items():
                self._parts(file, size)

    def prepare_data(self) -> None:
        """Check the files, and download what is missing or damaged; raise DataFileError if that is not possible."""
        self.files.prepare(self.download)

    def setup(self, stage: str | None = None) -> None:
        """Read the images of a stage into memory; raise ValueError for damaged files and for too few images."""
        for file, stages in {"train": (None, "fit", "validate"), "test": (None, "test")}.items():
            if stage in stages and file not in self.sets:
                self._load(file)

    def _load(self, file: str) -> None:
        images, labels = map(torch.from_numpy, self.files.read_split(file))
        for split, part in self._parts(file, len(labels)).items():
            # Clones, so that the unused rest of the file leaves the memory.
            self.keep(split, images[part].clone(), labels[part].clone())

    def _parts(self, file: str, available: int) -> dict[str, slice]:
        """Return where the splits lie in a file of ``available`` images."""
        if file == "test":
            if self.num_test is not None and self.num_test > available:
                raise ValueError(f"expected num_test of at most {available}, the size of the file, got {self.num_test}")
            return {"test": slice(self.num_test)}
        num_train = available - (self.num_val or 0) if self.num_train is None else self.num_train
        num_val = available - num_train if self.num_val is None else self.num_val
        if num_train < 1 or num_val < 0 or num_train + num_val > available:
            raise ValueError(
                f"expected num_train of at least 1 and num_train + num_val of at most {available}, the images in the "
                f"training file, got num_train={self.num_train} and num_val={self.num_val}"
            )
        return {"train": slice(num_train), "val": slice(available - num_val, available)}


def _as_it_is(batch: Any) -> Any:
    return batch
