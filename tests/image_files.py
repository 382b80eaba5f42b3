"""Tiny image sets in the real file formats, with classes that a small network can tell apart."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

NUM_CLASSES = 10
CIFAR10_NAMES = (
    b"airplane",
    b"automobile",
    b"bird",
    b"cat",
    b"deer",
    b"dog",
    b"frog",
    b"horse",
    b"ship",
    b"truck",
)


def class_images(count: int, shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return noisy images (count, C, H, W) of 4×4 blocks that depend on the class, and their labels, balanced.

    A class looks the same under every seed; order and noise differ.
    """
    channels, height, width = shape
    blocks = np.random.default_rng(0).integers(2, size=(NUM_CLASSES, channels, height // 4, width // 4))
    patterns = 40.0 + 160.0 * blocks.repeat(4, axis=2).repeat(4, axis=3)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % NUM_CLASSES).astype(np.uint8)
    images = patterns[labels] + rng.normal(scale=12.0, size=(count, *shape))
    return images.round().clip(0, 255).astype(np.uint8), labels


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return the array in the IDX format: 0, 0, 8 (unsigned byte), number of dimensions, big-endian sizes, data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path | str, num_train: int = 60, num_test: int = 20) -> Path:
    """Write the four files of an MNIST of random blocks to `folder`/MNIST/raw and return `folder`."""
    raw = Path(folder) / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": num_train, "t10k": num_test}.items()):
        images, labels = class_images(count, (1, 28, 28), seed)
        arrays = {f"{split}-images-idx3-ubyte.gz": images[:, 0], f"{split}-labels-idx1-ubyte.gz": labels}
        for name, array in arrays.items():
            (raw / name).write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    return Path(folder)


PYTHON_PICKLER: Any = pickle._Pickler  # the pickler that can be extended; type checkers do not know it


class _Python2Pickler(PYTHON_PICKLER):
    """Writes bytes and text as strings of Python 2, and numpy under its old module name, as in CIFAR-10's files."""

    dispatch: ClassVar[dict[type, Callable]] = dict(PYTHON_PICKLER.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_text(self, value: str) -> None:
        self.save_bytes(value.encode("ascii"))

    def save_global(self, value: Any, name: str | None = None) -> None:
        if getattr(value, "__name__", "") == "_reconstruct":
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text


def python2_pickle(value: Any) -> bytes:
    """Return the value pickled with protocol 2 and strings of Python 2."""
    buffer = BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def cifar_batch(count: int, seed: int, batch_label: bytes) -> dict[bytes, Any]:
    """Return the dict of one CIFAR-10 batch file."""
    images, labels = class_images(count, (3, 32, 32), seed)
    return {
        b"batch_label": batch_label,
        b"labels": [int(label) for label in labels],
        b"data": images.reshape(count, -1),
        b"filenames": [f"image_s_{index:06d}.png".encode() for index in range(count)],
    }


def write_cifar10(folder: Path | str, num_per_batch: int = 10, num_test: int = 20) -> Path:
    """Write five training batches, a test batch and the class names, and return `folder`.

    They go to `folder`/cifar-10-batches-py.
    """
    batches = Path(folder) / "cifar-10-batches-py"
    batches.mkdir(parents=True, exist_ok=True)
    contents: dict[str, dict[bytes, Any]] = {
        f"data_batch_{n}": cifar_batch(num_per_batch, n, f"training batch {n} of 5".encode()) for n in range(1, 6)
    }
    contents["test_batch"] = cifar_batch(num_test, 0, b"testing batch 1 of 1")
    contents["batches.meta"] = {
        b"num_cases_per_batch": num_per_batch,
        b"label_names": list(CIFAR10_NAMES),
        b"num_vis": 3072,
    }
    for name, content in contents.items():
        (batches / name).write_bytes(python2_pickle(content))
    return Path(folder)


def md5(path: Path) -> str:
    """Return the md5 sum of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def publish_mnist(monkeypatch: pytest.MonkeyPatch, folder: Path, *urls: str) -> None:
    """Make torchvision accept the MNIST of `write_mnist` in `folder` as the real one, with mirrors at `urls`."""
    raw = folder / "MNIST" / "raw"
    extracted = {path.stem: gzip.decompress(path.read_bytes()) for path in raw.glob("*.gz")}
    sums = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in extracted.items()}
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", [(p.name, md5(p)) for p in sorted(raw.glob("*.gz"))])
    monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [f"{url}/MNIST/raw/" for url in urls])
    monkeypatch.setattr("src.datamodules.mnist.EXTRACTED_CHECKSUMS", sums)


def publish_cifar10(monkeypatch: pytest.MonkeyPatch, folder: Path, *urls: str) -> None:
    """Make torchvision accept the CIFAR-10 of `write_cifar10` in `folder` as the real one, its archive at `urls[0]`.

    The archive is written to `folder`.
    """
    sums = {path.name: md5(path) for path in (folder / "cifar-10-batches-py").iterdir()}
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    attributes = {
        "train_list": [[name, sums[name]] for name in sorted(sums) if name.startswith("data_batch")],
        "test_list": [["test_batch", sums["test_batch"]]],
        "meta": {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]},
        "tgz_md5": md5(archive),
        "url": f"{urls[0]}/{archive.name}",
    }
    for name, value in attributes.items():
        monkeypatch.setattr(f"torchvision.datasets.CIFAR10.{name}", value)


class _QuietHandler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, requested: list[str], **kwargs: Any) -> None:
        self.requested = requested
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.headers["Method"] == "HEAD":  # torchvision asks for redirections in this way before it downloads
            self.do_HEAD()
        else:
            self.requested.append(self.path)
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder from this machine; yield the address and the list of downloaded paths."""
    monkeypatch.setenv("no_proxy", "*")
    requested: list[str] = []
    handler = partial(_QuietHandler, directory=str(folder), requested=requested)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requested
        server.shutdown()
        thread.join()


def mean_and_std(grey: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of uint8 grey values divided by 255, exact up to one rounding."""
    counts = torch.bincount(grey.flatten(), minlength=256).double()
    levels = torch.arange(256) / 255.0
    mean = (counts * levels).sum() / counts.sum()
    return float(mean), float(((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt())
