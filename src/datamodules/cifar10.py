"""CIFAR-10: 32×32 colour images of ten kinds of things, 50,000 to train and 10,000 to test."""

import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, utils

from src.datamodules.array_pickle import load_python2_pickle
from src.datamodules.downloads import DataFiles, download
from src.datamodules.images import ImageDataModule

SAMPLE_SHAPE = (3, 32, 32)
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
META = "batches.meta"
BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}


class CIFAR10Files(DataFiles):
    """The batches of CIFAR-10 and the names of its classes, as the archive for Python has them."""

    title = "CIFAR-10"
    subfolder = "cifar-10-batches-py"
    names = (META, *BATCHES["train"], *BATCHES["test"])

    def checksums(self) -> dict[str, str]:
        """Return the md5 sums of the extracted files."""
        return {**dict(CIFAR10.train_list), **dict(CIFAR10.test_list), META: CIFAR10.meta["md5"]}

    def source(self) -> str:
        """Return the address of the archive."""
        return CIFAR10.url

    def fetch(self, names: Sequence[str], folder: Path) -> Path:
        """Extract the archive, the one in the data folder if it is there, otherwise a downloaded one."""
        archive = self.data_dir / CIFAR10.filename
        if not utils.check_integrity(archive, CIFAR10.tgz_md5):
            archive = download([CIFAR10.url], folder, CIFAR10.filename, CIFAR10.tgz_md5)
        utils.extract_archive(archive, folder)
        return folder / CIFAR10.base_folder

    def parse(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """Return images (N, 3, 32, 32) and labels (N,) of a batch; check the names in the file that has them."""
        content = load_python2_pickle(path)
        if path.name != META:
            return _images_and_labels(content)
        names = content.get(b"label_names")
        expected = [name.encode() for name in CLASS_NAMES]
        if names != expected:
            raise ValueError(f"expected label_names {expected}, got {reprlib.repr(names)}")
        return None

    def read_split(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (N, 3, 32, 32) and labels (N,) in the order of the files."""
        images, labels = zip(*map(self.read, BATCHES[split]), strict=True)
        return np.concatenate(images), np.concatenate(labels)


class CIFAR10DataModule(ImageDataModule):
    """Tiny colour images (Krizhevsky, 2009), (3, 32, 32); augmented by flips and shifts of up to 4 pixels."""

    files_class = CIFAR10Files
    sample_shape = SAMPLE_SHAPE
    class_names = CLASS_NAMES
    file_sizes: ClassVar = {"train": 50_000, "test": 10_000}
    MEAN = (0.4914, 0.4822, 0.4465)
    STD = (0.2470, 0.2435, 0.2616)
    max_shift = 4
    flips = True


def _images_and_labels(content: dict[bytes, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data, labels = content.get(b"data"), content.get(b"labels")
    row = math.prod(SAMPLE_SHAPE)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != row:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"expected data as uint8 (N, {row}), got {found}")
    if not isinstance(labels, list) or len(labels) != len(data):
        found = f"a list of {len(labels)}" if isinstance(labels, list) else type(labels).__name__
        raise ValueError(f"expected labels as a list of {len(data)}, got {found}")
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < len(CLASS_NAMES)]
    if wrong:
        raise ValueError(f"expected labels as integers from 0 to 9, got {reprlib.repr(wrong[0])}")
    return data.reshape(-1, *SAMPLE_SHAPE), np.array(labels, np.int64)
