import shutil
import socket
import threading
import warnings

import pytest

from src.datamodules.cached_files import LOCK_NAME, exclusive
from src.datamodules.cifar10 import CIFAR10DataModule
from src.datamodules.downloads import DataFileError
from src.datamodules.mnist import MNISTDataModule
from src.runs.quiet import quiet_libraries
from tests.image_files import publish_cifar10, publish_mnist, serve, write_cifar10, write_mnist

WRITE = {MNISTDataModule: write_mnist, CIFAR10DataModule: write_cifar10}
PUBLISH = {MNISTDataModule: publish_mnist, CIFAR10DataModule: publish_cifar10}
VICTIM = {MNISTDataModule: "t10k-images-idx3-ubyte.gz", CIFAR10DataModule: "data_batch_3"}
UNREACHABLE = "http://127.0.0.1:9"  # the port that discards
pytestmark = pytest.mark.parametrize("kind", list(WRITE))


@pytest.fixture
def published(kind, tmp_path, monkeypatch):
    """The folder of the published files, the server's address, and what has been asked of it."""
    folder = WRITE[kind](tmp_path / "published")
    with serve(monkeypatch, folder) as (url, requested):
        PUBLISH[kind](monkeypatch, folder, url)
        yield folder, url, requested


def make(kind, folder, **kwargs):
    return kind(str(folder), **{"num_train": 20, "num_val": 5, **kwargs})


def contents(datamodule):
    return {p.name: p.read_bytes() for p in datamodule.files.folder.iterdir() if p.name != LOCK_NAME}


def test_whole_files_are_only_read_so_that_their_folder_may_be_read_only(kind, published, tmp_path, monkeypatch):
    folder, _, requested = published
    datamodule = make(kind, folder)
    below = [datamodule.files.folder, *datamodule.files.folder.iterdir()]
    for path in below:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat() for path in below}
    monkeypatch.setattr("src.datamodules.cached_files.require_writable", None)  # root writes in spite of the mode
    datamodule.prepare_data()
    datamodule.setup()
    assert sum(len(batch["label"]) for batch in datamodule.train_dataloader()) == 20
    assert {path: path.stat().st_mtime_ns for path in below} == {p: stat.st_mtime_ns for p, stat in before.items()}
    assert {*datamodule.files.folder.iterdir()} == {*below[1:]}
    assert requested == []
    datamodule.files.folder.chmod(0o755)


def test_nothing_is_downloaded_or_made_before_prepare_data(kind, published, tmp_path):
    _, _, requested = published
    make(kind, tmp_path / "new")
    assert not (tmp_path / "new").exists() and requested == []


def test_missing_files_are_downloaded_once(kind, published, tmp_path, capfd):
    folder, _, requested = published
    datamodule = make(kind, tmp_path / "new" / "data")
    with warnings.catch_warnings():
        quiet_libraries()  # as every run does
        warnings.simplefilter("error")
        datamodule.prepare_data()
    assert contents(datamodule) == contents(make(kind, folder))
    said = capfd.readouterr().err
    assert f" to {datamodule.files.folder}\n" in said and "100%" in said  # torchvision's progress bar
    assert len(requested) == {MNISTDataModule: 4, CIFAR10DataModule: 1}[kind]
    datamodule.prepare_data()
    assert len(requested) == {MNISTDataModule: 4, CIFAR10DataModule: 1}[kind]
    datamodule.setup()
    assert len(datamodule.train_dataloader().dataset) == 20


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
def test_a_damaged_file_is_named_and_downloaded_again(damage, kind, published, tmp_path):
    folder, _, _ = published
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("*.tar.gz"))
    datamodule = make(kind, tmp_path / "data")
    whole = contents(datamodule)
    victim = datamodule.files.folder / VICTIM[kind]
    kept = next(path for path in datamodule.files.folder.iterdir() if path != victim)
    stamp = kept.stat().st_mtime_ns
    damage(victim)
    damaged = victim.read_bytes()
    with (
        victim.open("rb") as reader,
        pytest.warns(UserWarning, match=rf"Replacing a damaged file: {victim}: expected md5 \w{{32}}, got \w{{32}} \("),
    ):
        datamodule.prepare_data()
        assert reader.read() == damaged  # the new file has been moved there, not written over the old one
    assert contents(datamodule) == whole
    assert kept.stat().st_mtime_ns == stamp


def test_a_file_that_cannot_be_read_is_downloaded_again_without_checksums_too(kind, published, tmp_path):
    folder, _, requested = published
    shutil.copytree(folder, tmp_path / "data", ignore=shutil.ignore_patterns("*.tar.gz"))
    datamodule = make(kind, tmp_path / "data", verify_checksums=False)
    whole = contents(datamodule)
    datamodule.prepare_data()
    assert requested == []
    truncate(datamodule.files.folder / VICTIM[kind])
    with pytest.warns(UserWarning, match="expected a (complete gzip file|pickle of arrays)"):
        datamodule.prepare_data()
    assert contents(datamodule) == whole


@pytest.mark.parametrize("verify_checksums", [True, False])
def test_what_is_missing_or_damaged_and_not_to_be_downloaded_is_explained(kind, verify_checksums, published, tmp_path):
    folder, url, requested = published
    datamodule = make(kind, tmp_path / "new", download=False, verify_checksums=verify_checksums)
    with pytest.raises(DataFileError) as caught:
        datamodule.prepare_data()
    assert not (tmp_path / "new").exists()
    message = str(caught.value)
    for name in datamodule.files.names:
        assert f"{datamodule.files.folder / name}: missing" in message
    for part in (datamodule.files.title, f"copy them to {datamodule.files.folder} (they come from {url}"):
        assert part in message
    assert "Set datamodule.download=true" in message
    assert f"datamodule.data_dir=<folder that has {datamodule.files.subfolder}>" in message

    datamodule = make(kind, folder, download=False, verify_checksums=verify_checksums)
    truncate(datamodule.files.folder / VICTIM[kind])
    with pytest.raises(ValueError, match=f"{datamodule.files.folder / VICTIM[kind]}: expected .*, got ") as caught:
        datamodule.prepare_data()
    assert ": missing" not in str(caught.value) and requested == []


def test_an_interrupted_download_leaves_nothing_half_way(kind, published, tmp_path, monkeypatch):
    folder, _, _ = published
    datamodule = make(kind, tmp_path / "data")

    def write_half(url, root, filename, md5):
        (root / filename).write_bytes(b"half of the f")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.download_url", write_half)
        with pytest.raises(KeyboardInterrupt):
            datamodule.prepare_data()
    assert contents(datamodule) == {}
    datamodule.prepare_data()
    assert contents(datamodule) == contents(make(kind, folder))


def test_leftovers_of_a_killed_process_are_cleared(kind, published, tmp_path):
    folder, _, _ = published
    datamodule = make(kind, tmp_path / "data")
    leftover = datamodule.files.folder / "abc.tmp"
    leftover.mkdir(parents=True)
    (leftover / VICTIM[kind]).write_bytes(b"half")
    datamodule.prepare_data()
    assert contents(datamodule) == contents(make(kind, folder))


def test_a_corrupted_download_is_refused_and_named(kind, published, tmp_path):
    folder, url, requested = published
    served = {MNISTDataModule: f"MNIST/raw/{VICTIM[kind]}", CIFAR10DataModule: "cifar-10-python.tar.gz"}[kind]
    flip_a_bit(folder / served)
    datamodule = make(kind, tmp_path / "data")
    with pytest.raises(DataFileError, match=f"could not be downloaded: {url}/{served}: File not found or corrupted"):
        datamodule.prepare_data()
    assert f"/{served}" in requested
    assert contents(datamodule) == {}


def test_a_download_without_network_names_files_folder_and_remedy(kind, published, tmp_path, monkeypatch):
    folder, _, _ = published
    PUBLISH[kind](monkeypatch, folder, UNREACHABLE)
    datamodule = make(kind, tmp_path / "data")
    with pytest.raises(DataFileError) as caught:
        datamodule.prepare_data()
    message = str(caught.value)
    assert f"{datamodule.files.folder / VICTIM[kind]}: missing" in message
    assert f"They could not be downloaded: {UNREACHABLE}" in message and "refused" in message
    assert f"Copy them to {datamodule.files.folder}" in message
    assert f"datamodule.data_dir=<folder that has {datamodule.files.subfolder}>" in message
    assert contents(datamodule) == {}


def test_a_silent_server_is_given_up(kind, published, tmp_path, monkeypatch):
    folder, _, _ = published
    monkeypatch.setattr("src.datamodules.downloads.SOCKET_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        PUBLISH[kind](monkeypatch, folder, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DataFileError, match=r"could not be downloaded: .*timed out"):
            make(kind, tmp_path / "data").prepare_data()
    assert socket.getdefaulttimeout() is None


def test_an_unwritable_folder_is_named_with_what_is_missing(kind, published, tmp_path):
    (tmp_path / "file").write_text("")
    datamodule = make(kind, tmp_path / "file")
    with pytest.raises(DataFileError, match=f"{VICTIM[kind]}: missing") as caught:
        datamodule.prepare_data()
    assert f"could not be downloaded: expected a folder that can be written to, got {tmp_path / 'file'}" in str(
        caught.value
    )


def test_two_that_start_together_download_once(kind, published, tmp_path):
    folder, _, requested = published
    datamodules = [make(kind, tmp_path / "data") for _ in range(2)]
    threads = [threading.Thread(target=datamodule.prepare_data) for datamodule in datamodules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert contents(datamodules[0]) == contents(make(kind, folder))
    assert len(requested) == {MNISTDataModule: 4, CIFAR10DataModule: 1}[kind]


def test_waits_for_whoever_downloads_and_takes_its_files(kind, published, tmp_path, capfd):
    folder, _, requested = published
    quiet_libraries()
    datamodule = make(kind, tmp_path / "data")
    datamodule.files.folder.mkdir(parents=True)
    with exclusive(datamodule.files.folder, "tests"):
        second = threading.Thread(target=datamodule.prepare_data)
        second.start()
        second.join(0.3)
        assert second.is_alive()
        assert "Waiting for another process that downloads " in capfd.readouterr().err
        shutil.copytree(make(kind, folder).files.folder, datamodule.files.folder, dirs_exist_ok=True)
    second.join(60)
    assert not second.is_alive() and requested == []
