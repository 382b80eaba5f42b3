import builtins
import errno
import math
import os
import pickle
import pickletools
import shutil
import tarfile

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from src.datamodules.array_pickle import load_python2_pickle
from src.datamodules.cached_files import LOCK_NAME
from src.datamodules.cifar10 import CIFAR10DataModule
from src.datamodules.downloads import DataFileError
from tests.image_files import (
    cifar_batch,
    class_images,
    md5,
    mean_and_std,
    publish_cifar10,
    python2_pickle,
    serve,
    write_cifar10,
)
from tests.marks import slow

GENUINE = os.environ.get("IMAGE_DATA_DIR")


def make(folder, **kwargs):
    arguments = {"num_train": 20, "num_val": 5, "values": "integers", "verify_checksums": False, "download": False}
    return CIFAR10DataModule(str(folder), **{**arguments, **kwargs})


def test_images_and_labels_are_those_of_the_files_in_their_order(tmp_path):
    datamodule = make(write_cifar10(tmp_path, num_per_batch=10, num_test=20))
    images, labels = datamodule.files.read_split("train")
    for seed in range(1, 6):
        expected_images, expected_labels = class_images(10, (3, 32, 32), seed)
        part = slice(10 * (seed - 1), 10 * seed)
        assert np.array_equal(images[part], expected_images) and np.array_equal(labels[part], expected_labels)
    expected_images, expected_labels = class_images(20, (3, 32, 32), 0)
    images, labels = datamodule.files.read_split("test")
    assert np.array_equal(images, expected_images) and np.array_equal(labels, expected_labels)


def test_torchvision_reads_the_same(tmp_path, monkeypatch):
    publish_cifar10(monkeypatch, write_cifar10(tmp_path), "unused")
    for split, training in (("train", True), ("test", False)):
        images, labels = make(tmp_path).files.read_split(split)
        theirs = CIFAR10(tmp_path, train=training)
        assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), images) and theirs.targets == labels.tolist()
        assert tuple(theirs.classes) == CIFAR10DataModule.class_names


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_pickled_by_python_3_are_read_too(protocol, tmp_path):
    write_cifar10(tmp_path)
    expected = make(tmp_path).files.read_split("test")
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(cifar_batch(20, 0, b"testing batch 1 of 1"), protocol=protocol))
    assert all(np.array_equal(a, b) for a, b in zip(make(tmp_path).files.read_split("test"), expected, strict=True))


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "__builtin__.eval"),
        (getattr, "__builtin__.getattr"),
        (builtins.__import__, "__builtin__.__import__"),
        (np.load, "numpy.load"),
        (os.path.join, "posixpath.join"),
    ],
)
def test_a_pickle_that_calls_a_function_is_refused_and_calls_nothing(function, name, tmp_path):
    path = write_cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_2"
    argument = f"touch {tmp_path / 'called'}"
    if function is eval:
        argument = f"open({str(tmp_path / 'called')!r}, 'w')"
    path.write_bytes(pickle.dumps({b"data": Calls(function, argument), b"labels": []}, protocol=2))
    with pytest.raises(DataFileError, match=f"{path}: expected a pickle of arrays .*UnpicklingError: {name}, which"):
        make(tmp_path).prepare_data()
    with pytest.raises(DataFileError, match=f"{name}, which"):
        make(tmp_path).setup("fit")
    assert not (tmp_path / "called").exists()


def test_bytes_of_python_3_are_decoded_by_latin_1_only(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": b"\x00\xff"}, protocol=2))
    assert load_python2_pickle(path) == {b"data": b"\x00\xff"}
    path.write_bytes(path.read_bytes().replace(b"latin1", b"rot_13"))
    with pytest.raises(ValueError, match="encoding 'rot_13'"):
        load_python2_pickle(path)


def with_changes(**changes):
    batch = cifar_batch(10, 3, b"training batch 3 of 5")
    return {**batch, **{name.encode(): value for name, value in changes.items()}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_changes(data=None), r"expected data as uint8 \(N, 3072\), got NoneType"),
        (with_changes(data=[[0] * 3072]), r"expected data as uint8 \(N, 3072\), got list"),
        (with_changes(data=np.zeros((10, 3072))), "an array of b'f8', and not of uint8"),
        (with_changes(data=np.zeros((10, 3000), np.uint8)), r"got uint8 \(10, 3000\)"),
        (with_changes(data=np.zeros((10, 3, 32, 32), np.uint8)), r"got uint8 \(10, 3, 32, 32\)"),
        (with_changes(labels=None), "expected labels as a list of 10, got NoneType"),
        (with_changes(labels=[0] * 9), "expected labels as a list of 10, got a list of 9"),
        (with_changes(labels=[0] * 9 + [10]), "expected labels as integers from 0 to 9, got 10"),
        (with_changes(labels=[-1] + [0] * 9), "expected labels as integers from 0 to 9, got -1"),
        (with_changes(labels=[1.5] * 10), "expected labels as integers from 0 to 9, got 1.5"),
        ({}, r"expected data as uint8 \(N, 3072\), got NoneType"),
        ([1, 2], "expected a pickled dict, got list"),
    ],
)
def test_a_batch_that_is_not_as_it_should_be_is_named_with_what_was_expected(content, message, tmp_path):
    path = write_cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(python2_pickle(content))
    datamodule = make(tmp_path)
    for step in (datamodule.prepare_data, datamodule.setup):
        with pytest.raises(DataFileError, match=rf"got {path}: .*{message}.*datamodule\.download=true"):
            step()


@pytest.mark.parametrize("length", [0, 1, 2, 30, 1000, -1])
def test_a_pickle_cut_off_is_named(length, tmp_path):
    path = write_cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataFileError, match=f"{path}: expected a pickle of arrays and plain values, got "):
        make(tmp_path).prepare_data()


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x80\x02garbage", bytes(100), b"\x80\x63.", b"}b.", b"(."])
def test_what_is_no_pickle_is_named(content, tmp_path):
    path = write_cifar10(tmp_path) / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=f"{path}: expected a pickle of arrays and plain values, got "):
        make(tmp_path).prepare_data()


def nested_tuples(depth):
    """A tuple of a tuple twice, and so on: its hash takes 2^depth steps."""
    twice = pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.TUPLE2
    return pickle.EMPTY_TUPLE + twice * depth


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + nested_tuples(60) + b"K\x01s.",  # never ends as a key
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x05\x96" + b"\xff" * 6 + b"\x00\x00.",  # a bytearray of 256 TiB
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f}.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02}U\x04data" + nested_tuples(60) + b"s.",
        b"\x80\x02}U\x0blabel_names" + nested_tuples(60) + b"s.",
        python2_pickle({b"data": np.zeros((2, 2), complex), b"labels": []}),
        python2_pickle({b"data": np.array([None]), b"labels": []}),
        pickle.dumps({b"data": np.zeros(1, [("a", "u1")]), b"labels": []}, 2),
    ],
)
def test_what_takes_all_memory_or_never_ends_elsewhere_is_named(content, tmp_path):
    for name in ("data_batch_1", "batches.meta"):
        path = write_cifar10(tmp_path) / "cifar-10-batches-py" / name
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=str(path)):
            make(tmp_path).prepare_data()


def damaged(content, rng):
    """The bytes with some of them changed, removed, doubled or cut off."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start, length = rng.integers(len(content) + 1), rng.integers(1, 9)
        new = [
            rng.bytes(length),
            bytes(content[start : start + length]) * 2,
            b"",
            bytes(byte ^ (1 << int(rng.integers(8))) for byte in content[start : start + 1]),
            bytes(rng.choice(OPCODES, length)),
        ][rng.integers(5)]
        content[start : start + (1 if len(new) == 1 else length)] = new
    return bytes(content[: rng.integers(len(content) + 1)] if rng.random() < 0.05 else content)


OPCODES = np.frombuffer("".join(opcode.code for opcode in pickletools.opcodes).encode("latin1"), np.uint8)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, "python 2"])
@pytest.mark.parametrize("count", [200, slow(10_000)])
def test_arbitrary_bytes_are_read_as_plain_values_or_are_a_value_error(protocol, count, tmp_path):
    batch = {b"labels": [3, 1], b"data": np.arange(6, dtype=np.uint8).reshape(2, 3), b"names": [b"a", b"b"], b"f": 0.5}
    content = python2_pickle(batch) if protocol == "python 2" else pickle.dumps(batch, protocol)
    path, rng = tmp_path / "batch", np.random.default_rng(0)
    if protocol in ("python 2", 2, 3, 4):
        path.write_bytes(content)
        assert {**load_python2_pickle(path), b"data": batch[b"data"].tolist()} == {
            **batch,
            b"data": [[0, 1, 2], [3, 4, 5]],
        }
    for _ in range(count):
        path.write_bytes(damaged(content, rng))
        try:
            found = load_python2_pickle(path)
        except ValueError as error:
            assert len(str(error)) < 1000
        else:
            assert all(type(key) in (bytes, str, int) for key in found)


@pytest.mark.parametrize("dtype", ["?", "i1", "<u4", ">f4"])
def test_arrays_of_other_numbers_are_refused(dtype, tmp_path):
    (tmp_path / "batch").write_bytes(pickle.dumps({b"data": np.zeros(3, dtype)}, 2))
    with pytest.raises(ValueError, match=f"an array of '{np.dtype(dtype).str[1:]}', and not of uint8"):
        load_python2_pickle(tmp_path / "batch")


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_arrays_are_read_as_numpy_wrote_them(shape, tmp_path):
    array = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    for order in ("C", "F"):
        for protocol in (2, 3, 4):
            (tmp_path / "batch").write_bytes(pickle.dumps({b"data": np.asarray(array, order=order)}, protocol))
            found = load_python2_pickle(tmp_path / "batch")[b"data"]
            assert found.dtype == array.dtype and np.array_equal(found, array) and found.shape == shape


def test_the_names_of_the_classes_are_checked(tmp_path):
    path = write_cifar10(tmp_path) / "cifar-10-batches-py" / "batches.meta"
    path.write_bytes(python2_pickle({b"label_names": [b"cat", b"dog"]}))
    with pytest.raises(DataFileError, match=rf"{path}: expected label_names \[b'airplane'.*got \[b'cat', b'dog'\]"):
        make(tmp_path).prepare_data()


def test_an_archive_that_is_there_already_is_extracted(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path / "published")
    with serve(monkeypatch, folder) as (url, requested):
        publish_cifar10(monkeypatch, folder, url)
        (tmp_path / "data").mkdir()
        shutil.copy(folder / "cifar-10-python.tar.gz", tmp_path / "data")
        datamodule = make(tmp_path / "data", download=True)
        datamodule.prepare_data()
        assert requested == []
        assert {path.name for path in datamodule.files.folder.iterdir()} == {*datamodule.files.names, LOCK_NAME}
        shutil.rmtree(datamodule.files.folder)
        (tmp_path / "data" / "cifar-10-python.tar.gz").write_bytes(b"not the archive")
        datamodule.prepare_data()
        assert requested == ["/cifar-10-python.tar.gz"]


@pytest.mark.parametrize("missing", [True, False])
def test_an_archive_with_other_files_than_its_list_is_refused(missing, tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path / "published")
    publish_cifar10(monkeypatch, folder, "unused")
    victim = folder / "cifar-10-batches-py" / "data_batch_4"
    if missing:
        victim.unlink()
    else:
        victim.write_bytes(b"other")
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr("torchvision.datasets.CIFAR10.tgz_md5", md5(archive))
    datamodule = make(tmp_path / "data", download=True)
    with pytest.raises(DataFileError, match=r"data_batch_4 of the download: (missing|expected md5 \w+, got)") as caught:
        datamodule.prepare_data()
    assert "data_batch_3 of" not in str(caught.value)
    assert [path.name for path in datamodule.files.folder.iterdir()] == [LOCK_NAME]


def test_a_disk_that_is_full_is_reported_and_cleared(tmp_path, monkeypatch):
    folder = write_cifar10(tmp_path / "published")
    publish_cifar10(monkeypatch, folder, "unused")
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "cifar-10-python.tar.gz", tmp_path / "data")

    def fill(archive, folder):
        (folder / "cifar-10-batches-py").mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", fill)
    datamodule = make(tmp_path / "data", download=True)
    with pytest.raises(DataFileError, match=r"could not be downloaded: .*No space left on device"):
        datamodule.prepare_data()
    assert [path.name for path in datamodule.files.folder.iterdir()] == [LOCK_NAME]


@pytest.mark.skipif(GENUINE is None, reason="IMAGE_DATA_DIR names no folder with the genuine files")
def test_the_genuine_files():
    datamodule = CIFAR10DataModule(GENUINE, num_train=None, num_val=0, download=False)
    datamodule.prepare_data()
    datamodule.setup()
    train, test = datamodule.train_dataloader().dataset.dataset, datamodule.test_dataloader().dataset
    assert train.images.shape == (50_000, 3, 32, 32) and test.images.shape == (10_000, 3, 32, 32)
    assert train.labels[:5].tolist() == [6, 9, 9, 4, 1] and test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert train.labels.bincount().tolist() == [5000] * 10 and test.labels.bincount().tolist() == [1000] * 10
    assert train.images[0, :, 0, 0].tolist() == [59, 62, 63]
    for channel, expected in enumerate(zip(datamodule.MEAN, datamodule.STD, strict=True)):
        assert mean_and_std(train.images[:, channel]) == pytest.approx(expected, abs=5.1e-5)
