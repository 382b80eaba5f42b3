"""MNIST: 28×28 grey images of handwritten digits, 60,000 to train and 10,000 to test."""

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvision.datasets import MNIST

from src.datamodules.downloads import DataFiles, download
from src.datamodules.images import ImageDataModule
from src.utils.reading import reading

SAMPLE_SHAPE = (1, 28, 28)
CLASS_NAMES = tuple("0123456789")
UNSIGNED_BYTE = 8  # the code of the type in an IDX header
PREFIXES = {"train": "train", "test": "t10k"}  # of the files' names
# Of the files inside the .gz; torchvision has those of the .gz.
EXTRACTED_CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class MNISTFiles(DataFiles):
    """The four files of MNIST, compressed as they are published, or extracted."""

    title = "MNIST"
    subfolder = "MNIST/raw"
    names = tuple(f"{name}.gz" for name in EXTRACTED_CHECKSUMS)

    def checksums(self) -> dict[str, str]:
        """Return the md5 sums of the compressed and the extracted files."""
        return {**dict(MNIST.resources), **EXTRACTED_CHECKSUMS}

    def source(self) -> str:
        """Return the first mirror."""
        return MNIST.mirrors[0]

    def fetch(self, names: Sequence[str], folder: Path) -> Path:
        """Download the compressed files, each from the first mirror that has it."""
        for name in names:
            download([f"{mirror}{name}" for mirror in MNIST.mirrors], folder, name, dict(MNIST.resources)[name])
        return folder

    def locate(self, name: str) -> Path:
        """Return the path of the compressed file, or of the extracted one if only that is there."""
        compressed = self.folder / name
        extracted = compressed.with_suffix("")
        return extracted if extracted.is_file() and not compressed.is_file() else compressed

    def parse(self, path: Path) -> NDArray[np.uint8]:
        """Return images (N, 28, 28) or labels (N,)."""
        if "images" in path.name:
            return read_idx(path, SAMPLE_SHAPE[1:])
        labels = read_idx(path, ())
        if (labels >= len(CLASS_NAMES)).any():
            raise ValueError(f"expected labels from 0 to 9, got {labels.max()}")
        return labels

    def read_split(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (N, 1, 28, 28) and labels (N,)."""
        labels_name = f"{PREFIXES[split]}-labels-idx1-ubyte.gz"
        images, labels = self.read(f"{PREFIXES[split]}-images-idx3-ubyte.gz"), self.read(labels_name)
        if len(images) != len(labels):
            problem = f"expected {len(images)} labels, one per image, got {len(labels)}"
            raise self.error(f"{self.locate(labels_name)}: {problem}")
        return images[:, None], labels.astype(np.int64)


class MNISTDataModule(ImageDataModule):
    """Handwritten digits (LeCun, Bottou, Bengio, Haffner, 1998), (1, 28, 28); augmented by shifts of up to 2 pixels."""

    files_class = MNISTFiles
    sample_shape = SAMPLE_SHAPE
    class_names = CLASS_NAMES
    file_sizes: ClassVar = {"train": 60_000, "test": 10_000}
    MEAN = (0.1307,)
    STD = (0.3081,)
    max_shift = 2
    flips = False


def read_idx(path: Path, item_shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the array (N, *item_shape) of an IDX file of unsigned bytes, plain or gzip; raise ValueError if damaged.

    The format: the bytes 0, 0, type, number of dimensions; each dimension as four bytes, big-endian; the data.
    """
    with reading(path, "a complete gzip file"), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = file.read()
    num_dims = 1 + len(item_shape)
    expected_magic = struct.pack("BBBB", 0, 0, UNSIGNED_BYTE, num_dims)
    header_length = 4 + 4 * num_dims
    if content[:4] != expected_magic or len(content) < header_length:
        raise ValueError(
            f"expected an IDX file that begins with {expected_magic.hex()} and {num_dims} dimensions, "
            f"got {len(content)} bytes that begin with {content[:4].hex()}"
        )
    shape = struct.unpack(f">{num_dims}I", content[4:header_length])
    if shape[1:] != item_shape:
        raise ValueError(f"expected items of shape {item_shape}, got {shape[1:]}")
    if len(content) != header_length + math.prod(shape):
        raise ValueError(f"expected {header_length + math.prod(shape)} bytes for shape {shape}, got {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header_length).reshape(shape).copy()  # the content is read-only
