import gzip
import os

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from src.datamodules.downloads import DataFileError
from src.datamodules.mnist import MNISTDataModule, read_idx
from tests.image_files import class_images, idx_bytes, mean_and_std, publish_mnist, serve, write_mnist

GENUINE = os.environ.get("IMAGE_DATA_DIR")
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def make(folder, **kwargs):
    arguments = {"num_train": 20, "num_val": 5, "values": "integers", "verify_checksums": False, "download": False}
    return MNISTDataModule(str(folder), **{**arguments, **kwargs})


def extract(raw):
    for path in raw.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def rewrite(path, array):
    path.write_bytes(gzip.compress(idx_bytes(array)))


def test_images_and_labels_are_those_of_the_files(tmp_path):
    datamodule = make(write_mnist(tmp_path, num_train=60, num_test=20))
    for seed, (split, count) in enumerate({"train": 60, "test": 20}.items()):
        expected_images, expected_labels = class_images(count, (1, 28, 28), seed)
        images, labels = datamodule.files.read_split(split)
        assert np.array_equal(images, expected_images) and np.array_equal(labels, expected_labels)
        assert images.flags.writeable  # torch warns of arrays that are not


@pytest.mark.parametrize("verify_checksums", [True, False])
def test_extracted_files_are_read_where_the_compressed_ones_are_missing(verify_checksums, tmp_path, monkeypatch):
    publish_mnist(monkeypatch, write_mnist(tmp_path), "unused")
    expected = make(tmp_path).files.read_split("train")
    extract(tmp_path / "MNIST" / "raw")
    datamodule = make(tmp_path, verify_checksums=verify_checksums)
    datamodule.prepare_data()
    assert all(np.array_equal(a, b) for a, b in zip(datamodule.files.read_split("train"), expected, strict=True))


def test_a_damaged_extracted_file_is_found_by_its_checksum_and_a_compressed_one_downloaded(tmp_path, monkeypatch):
    folder = write_mnist(tmp_path / "published")
    raw = write_mnist(tmp_path / "data") / "MNIST" / "raw"
    extract(raw)
    victim = raw / "train-images-idx3-ubyte"
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    publish_mnist(monkeypatch, folder, "unused")
    with pytest.raises(DataFileError, match=f"{victim}: expected md5"):
        make(tmp_path / "data", verify_checksums=True).prepare_data()
    with serve(monkeypatch, folder) as (url, requested):
        publish_mnist(monkeypatch, folder, url)
        datamodule = make(tmp_path / "data", verify_checksums=True, download=True)
        with pytest.warns(UserWarning, match=f"Replacing a damaged file: {victim}: "):
            datamodule.prepare_data()
        assert requested == [f"/MNIST/raw/{IMAGES}"]
    assert np.array_equal(datamodule.files.read_split("train")[0], make(folder).files.read_split("train")[0])


def test_the_compressed_file_is_preferred(tmp_path):
    raw = write_mnist(tmp_path) / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").write_bytes(b"something else")
    make(tmp_path).prepare_data()


def test_the_next_mirror_is_tried(tmp_path, monkeypatch):
    folder = write_mnist(tmp_path / "published")
    with serve(monkeypatch, folder) as (url, _):
        publish_mnist(monkeypatch, folder, f"{url}/nothing-here", url)
        datamodule = make(tmp_path / "data", download=True, verify_checksums=True)
        datamodule.prepare_data()
    assert np.array_equal(datamodule.files.read_split("test")[0], make(folder).files.read_split("test")[0])


def empty(path):
    path.write_bytes(b"")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def no_gzip(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def labels_for_images(path):
    rewrite(path, np.zeros(60, np.uint8))


def one_byte_too_few(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))


def one_byte_too_many(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"0"))


def header_only_begun(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:9]))


def floats(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[2] = 0x0D
    path.write_bytes(gzip.compress(content))


def other_size(path):
    rewrite(path, np.zeros((60, 14, 56), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, r"expected an IDX file .* got 0 bytes"),
        (truncate, r"expected a complete gzip file, got .*: EOFError: Compressed file ended"),
        (no_gzip, r"expected a complete gzip file, got .*: Not a gzipped file"),
        (labels_for_images, r"expected an IDX file that begins with 00000803 .* got 68 bytes that begin with 00000801"),
        (one_byte_too_few, r"expected 47056 bytes for shape \(60, 28, 28\), got 47055"),
        (one_byte_too_many, r"expected 47056 bytes for shape \(60, 28, 28\), got 47057"),
        (header_only_begun, r"expected an IDX file .* got 9 bytes"),
        (floats, r"expected an IDX file that begins with 00000803 .* that begin with 00000d03"),
        (other_size, r"expected items of shape \(28, 28\), got \(14, 56\)"),
    ],
)
def test_damaged_images_are_named_with_what_was_expected(damage, message, tmp_path):
    victim = write_mnist(tmp_path) / "MNIST" / "raw" / IMAGES
    damage(victim)
    datamodule = make(tmp_path)
    for step in (datamodule.prepare_data, datamodule.setup):
        with pytest.raises(DataFileError, match=rf"got {victim}: {message}.*datamodule\.download=true"):
            step()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_damaged_byte_of_the_compressed_data_is_noticed_without_checksums(share, tmp_path):
    victim = write_mnist(tmp_path) / "MNIST" / "raw" / IMAGES
    content = bytearray(victim.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    victim.write_bytes(content)
    with pytest.raises(DataFileError, match=f"{victim}: expected a complete gzip file"):
        make(tmp_path).prepare_data()


def test_labels_are_digits_and_as_many_as_images(tmp_path):
    labels = write_mnist(tmp_path) / "MNIST" / "raw" / LABELS
    rewrite(labels, np.arange(60, dtype=np.uint8) % 11)
    with pytest.raises(DataFileError, match=f"{labels}: expected labels from 0 to 9, got 10"):
        make(tmp_path).prepare_data()
    rewrite(labels, np.zeros(59, np.uint8))
    with pytest.raises(DataFileError, match=f"{labels}: expected 60 labels, one per image, got 59"):
        make(tmp_path).setup()


def test_an_idx_file_reads_as_the_array_that_was_written(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(4, 3, 5), dtype=np.uint8)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    rewrite(tmp_path / "compressed.gz", array)
    for name in ("plain", "compressed.gz"):
        assert np.array_equal(read_idx(tmp_path / name, (3, 5)), array)


def test_torchvision_reads_the_same(tmp_path):
    write_mnist(tmp_path)
    images, labels = make(tmp_path).files.read_split("test")
    extract(tmp_path / "MNIST" / "raw")
    theirs = MNIST(tmp_path, train=False)
    assert np.array_equal(theirs.data.numpy(), images[:, 0]) and theirs.targets.tolist() == labels.tolist()


@pytest.mark.skipif(GENUINE is None, reason="IMAGE_DATA_DIR names no folder with the genuine files")
def test_the_genuine_files():
    datamodule = MNISTDataModule(GENUINE, num_train=None, num_val=0, download=False)
    datamodule.prepare_data()
    datamodule.setup()
    train, test = datamodule.train_dataloader().dataset.dataset, datamodule.test_dataloader().dataset
    assert train.images.shape == (60_000, 1, 28, 28) and test.images.shape == (10_000, 1, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels.bincount().tolist() == counts
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mean_and_std(train.images) == pytest.approx((*datamodule.MEAN, *datamodule.STD), abs=5.1e-5)
    first = MNISTDataModule(GENUINE, num_train=500, values="integers", download=False)
    first.setup("fit")
    batch = first.train_dataloader().dataset.dataset.__getitems__(list(range(500)))
    assert torch.equal(batch["image"], train.images[:500].float()) and torch.equal(batch["label"], train.labels[:500])
