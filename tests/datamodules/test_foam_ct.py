import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from src.config.checks import checked
from src.config.composition import compose_config
from src.ct.fbp import FILTERS
from src.ct.foam import FoamSpec
from src.ct.simulation import ScanSpec
from src.datamodules.cached_files import exclusive
from src.datamodules.foam_ct import FoamCTDataModule
from src.datamodules.foam_volumes import FoamVolumes, find_damage, read_volumes
from src.utils.errors import ConfigError
from tests.damage import bit_flips

SMALL = {"num_train": 3, "num_val": 1, "num_test": 2, "generation_workers": 0}
FOAM = {"num_balls": 4, "num_trial_points": 1_000}
SCAN = {"size": 8, "num_views": 4}


def make(folder, foam=FOAM, scan=SCAN, **kwargs):
    """A datamodule of tiny volumes, with other values in ``foam``, ``scan`` or as arguments."""
    specs = FoamSpec(**{**FOAM, **foam}), ScanSpec(**{**SCAN, **scan})
    return FoamCTDataModule(str(folder), *specs, **{**SMALL, **kwargs})


def prepare(folder, **kwargs):
    datamodule = make(folder, **kwargs)
    datamodule.prepare_data()
    return datamodule


def contents(datamodule):
    return {path: path.read_bytes() for path in sorted(datamodule.cache_folder.rglob("*.npz"))}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("foam"))


def test_batches(prepared):
    assert prepared.data_range == 1.0
    batch = next(iter(prepared.test_dataloader()))
    assert set(batch) == {"input", "target", "index"}
    for volume in (batch["input"], batch["target"]):
        assert volume.shape == (1, 1, 8, 8, 8) and volume.dtype == torch.float32
    assert batch["index"].dtype == torch.int64 and batch["index"].shape == (1,)
    assert batch["target"].min() >= 0 and batch["target"].max() <= 1
    assert not torch.equal(batch["input"], batch["target"])
    loaders = (prepared.train_dataloader(), prepared.val_dataloader(), prepared.test_dataloader())
    assert [len(loader) for loader in loaders] == [3, 1, 2]


def test_only_training_pairs_are_shuffled_and_augmented(prepared):
    def epoch(loader):
        return {int(batch["index"]): batch["target"] for batch in loader}

    for loader in (prepared.val_dataloader(), prepared.test_dataloader()):
        first, second = epoch(loader), epoch(loader)
        assert list(first) == list(second) == list(range(len(first)))
        assert all(torch.equal(first[index], second[index]) for index in first)
    torch.manual_seed(0)
    loader = prepared.train_dataloader()
    epochs = [epoch(loader) for _ in range(8)]
    assert len({tuple(targets) for targets in epochs}) > 1
    assert len({targets[0].numpy().tobytes() for targets in epochs}) > 1
    assert len({round(float(targets[0].double().sum()), 6) for targets in epochs}) == 1  # turned, not changed
    torch.manual_seed(0)
    loader = prepared.train_dataloader()
    again = [epoch(loader) for _ in range(8)]
    assert [list(targets) for targets in again] == [list(targets) for targets in epochs]
    assert all(torch.equal(a[n], b[n]) for a, b in zip(again, epochs, strict=True) for n in range(3))


def test_augmentation_can_be_switched_off(prepared):
    plain = make(prepared.cache_folder.parent, augment=False)
    loader = plain.train_dataloader()
    targets = [next(b["target"] for b in loader if b["index"] == 0) for _ in range(4)]
    assert all(torch.equal(targets[0], target) for target in targets)


def test_loaders_take_batch_size_workers_and_pinning(prepared):
    datamodule = make(prepared.cache_folder.parent, batch_size=2, num_workers=1, pin_memory=False)
    batch = next(iter(datamodule.test_dataloader()))
    assert batch["input"].shape == (2, 1, 8, 8, 8)
    assert batch["index"].tolist() == [0, 1]
    assert make(prepared.cache_folder.parent, pin_memory=True).test_dataloader().pin_memory


def test_files_hold_the_phantom_and_the_folder_its_parameters(prepared):
    parameters = json.loads((prepared.cache_folder / "parameters.json").read_text())
    assert parameters["scan"]["num_views"] == 4 and parameters["seed"] == 0
    with np.load(prepared.cache_folder / "test" / "00001.npz") as file:
        assert file["centres"].shape == (4, 3) and file["radii"].shape == (4,)
        assert file["cylinder"].shape == (2,) and file["axis"].shape == (3,)
        assert file["entropy"].tolist() == [0, 2, 1]


def test_volumes_differ_between_indices_splits_and_seeds(prepared, tmp_path):
    other = prepare(tmp_path, seed=1)
    assert other.cache_folder.name != prepared.cache_folder.name
    assert len({*contents(prepared).values(), *contents(other).values()}) == 12


@pytest.mark.slow
def test_processes_and_device_make_the_same_files(prepared, tmp_path):
    parallel = prepare(tmp_path, generation_workers=2, generation_device="cpu")
    assert list(contents(parallel).values()) == list(contents(prepared).values())


def test_more_volumes_keep_those_that_exist(tmp_path):
    before = contents(prepare(tmp_path))
    stamps = {path: path.stat().st_mtime_ns for path in before}
    larger = prepare(tmp_path, num_train=5)
    assert len(contents(larger)) == 8
    assert {path: path.stat().st_mtime_ns for path in before} == stamps
    assert len(prepare(tmp_path, num_train=1).train_dataloader()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scan": {"size": 9}},
        {"foam": {"num_balls": [4, 5]}},
        {"foam": {"radius": [0.6, 0.8]}},
        {"foam": {"half_height": 0.7}},
        {"foam": {"max_radius": 0.21}},
        {"foam": {"min_radius": 0.07}},
        {"foam": {"num_trial_points": 1_001}},
        {"scan": {"num_views": 5}},
        {"scan": {"photon_count": None}},
        {"scan": {"attenuation": 2.0}},
        {"scan": {"axis_noise_deg": 1.0}},
        {"scan": {"fbp_filter": "hann"}},
        {"scan": {"detector_size": 30}},
        {"scan": {"detector_oversampling": 1}},
        {"scan": {"fbp_oversampling": 1}},
        {"scan": {"truth_oversampling": 2}},
        {"seed": 5},
    ],
)
def test_every_parameter_of_the_data_is_in_the_key_and_runs(change, tmp_path):
    changed = prepare(tmp_path, num_train=1, num_test=1, **change)
    assert changed.cache_folder != make(tmp_path).cache_folder
    batch = next(iter(changed.val_dataloader()))
    assert torch.isfinite(batch["input"]).all()


def test_equal_settings_written_differently_share_a_folder(tmp_path):
    folder = make(tmp_path).cache_folder
    assert make(tmp_path, {"num_balls": [4, 4]}, {"photon_count": 500, "attenuation": 1}).cache_folder == folder
    assert make(tmp_path, num_train=50, batch_size=2, augment=False).cache_folder == folder
    as_config = OmegaConf.create({"radius": [0.6, 0.9], "num_balls": [4, 4]})
    assert make(tmp_path, as_config).cache_folder == folder
    noise_free = make(tmp_path, scan={"photon_count": None}).cache_folder
    assert make(tmp_path, scan={"photon_count": float("inf")}).cache_folder == noise_free


def test_caches_of_earlier_versions_are_found():
    assert FoamCTDataModule().cache_folder.name == "size32-views12-e6c38bb159e0"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datamodule.foam.num_bals=3", "got 'datamodule.foam.num_bals'; did you mean 'datamodule.foam.num_balls'"),
        ("+datamodule.scan.num_viewz=3", "argument of src.ct.simulation.ScanSpec, got .*; did you mean 'num_views'"),
        ("datamodule.scan.num_views=many", "expected datamodule.scan.num_views to be int, got 'many'"),
    ],
)
def test_mistakes_in_the_groups_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        checked(compose_config(["run_dir=x", override]))


@pytest.mark.parametrize("filter_name", FILTERS)
def test_every_filter_can_be_chosen(filter_name, tmp_path):
    assert make(tmp_path, scan={"fbp_filter": filter_name}).spec.scan.fbp_filter == filter_name


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **arrays)


def wrong_shape(path):
    rewrite(path, truth=np.zeros((8, 8, 4), np.float32))


def wrong_type(path):
    rewrite(path, truth=np.zeros((8, 8, 8)))


def not_finite(path):
    rewrite(path, fbp=np.full((8, 8, 8), np.nan, np.float32))


def without_truth(path):
    with np.load(path) as file:
        np.savez(path, fbp=file["fbp"])


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, wrong_shape, wrong_type, not_finite, without_truth])
def test_a_damaged_file_is_named_and_rebuilt(damage, tmp_path):
    datamodule = prepare(tmp_path)
    before = contents(datamodule)
    victim = datamodule.cache_folder / "train" / "00001.npz"
    damage(victim)
    with pytest.warns(UserWarning, match=r"Replacing a damaged file: .*, got '.*train/00001\.npz': \w+"):
        datamodule.prepare_data()
    assert find_damage(victim, 8) is None
    assert contents(datamodule) == before


def test_every_flipped_bit_of_a_volume_is_found_and_named(prepared):
    [path, *_] = contents(prepared)
    assert find_damage(path, 8) is None
    for _ in bit_flips(path, 200):
        assert str(path) in find_damage(path, 8)
    assert find_damage(path, 8) is None


def test_a_volume_of_an_earlier_version_has_no_digest_and_is_checked_by_its_crcs(prepared, tmp_path):
    [source, *_] = contents(prepared)
    path = tmp_path / "old.npz"
    with np.load(source) as file:
        np.savez(path, **file)
    expected = read_volumes(path)
    assert find_damage(path, 8) is None
    for _ in bit_flips(path, 200):
        if find_damage(path, 8) is None:
            found = read_volumes(path)
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_damage_that_comes_after_the_start_is_named_too(prepared):
    path = prepared.cache_folder / "train" / "00000.npz"
    content = path.read_bytes()
    position = content.index(read_volumes(path)["truth"].tobytes())
    damaged = bytearray(content)
    damaged[position + 100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"expected a whole CT volume, got '.*train/00000\.npz': BadZipFile: Bad CRC"):
        FoamVolumes([path], augment=False)[0]
    path.write_bytes(content)


def test_resumes_with_what_is_missing_and_clears_leftovers(tmp_path):
    datamodule = prepare(tmp_path)
    before = contents(datamodule)
    missing, kept, *_ = before
    missing.unlink()
    leftover = missing.with_name(missing.name + ".abc.tmp")
    leftover.write_bytes(b"half")
    stamp = kept.stat().st_mtime_ns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        datamodule.prepare_data()
    assert contents(datamodule) == before
    assert kept.stat().st_mtime_ns == stamp
    assert not leftover.exists()


def test_a_complete_cache_is_only_read(tmp_path, monkeypatch):
    datamodule = prepare(tmp_path)

    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr("src.datamodules.cached_files.require_writable", refuse)
    monkeypatch.setattr("src.datamodules.foam_ct.run_parallel", refuse)
    datamodule.prepare_data()


def test_unwritable_folder_is_named_before_anything_is_simulated(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    datamodule = make(tmp_path / "file")
    monkeypatch.setattr("src.datamodules.foam_ct.run_parallel", None)
    with pytest.raises(ValueError, match=f"folder that can be written to, got {tmp_path / 'file'}"):
        datamodule.prepare_data()


@pytest.mark.slow
def test_two_processes_that_start_together_share_the_work(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare, args=(tmp_path,), kwargs={"num_train": 6}) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    datamodule = make(tmp_path, num_train=6)
    assert len(contents(datamodule)) == 9
    assert all(find_damage(path, 8) is None for path in contents(datamodule))
    assert not list(datamodule.cache_folder.rglob("*.tmp"))


def test_waits_for_whoever_holds_the_lock(tmp_path):
    datamodule = prepare(tmp_path)
    victim = next(iter(contents(datamodule)))
    victim.unlink()
    with exclusive(datamodule.cache_folder, "holds the lock"):
        second = threading.Thread(target=prepare, args=(tmp_path,))
        second.start()
        second.join(0.5)
        assert second.is_alive() and not victim.exists()
    second.join(60)
    assert not second.is_alive() and victim.exists()


def test_by_default_few_processes_share_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("src.datamodules.foam_ct.available_cpus", lambda: 16)
    assert make(tmp_path, generation_workers=None).generation_workers == 16
    assert make(tmp_path, generation_workers=None, generation_device="meta").generation_workers == 2
    assert make(tmp_path, generation_workers=5, generation_device="meta").generation_workers == 5


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_leaves_only_whole_files(tmp_path):
    arguments = {**SMALL, "num_train": 5000, "generation_workers": 2}
    script = textwrap.dedent(f"""
        if __name__ == "__main__":
            from src.datamodules.foam_ct import FoamCTDataModule
            from src.ct.foam import FoamSpec
            from src.ct.simulation import ScanSpec
            specs = FoamSpec(**{FOAM!r}), ScanSpec(**{SCAN!r})
            FoamCTDataModule({str(tmp_path)!r}, *specs, **{arguments!r}).prepare_data()
    """)
    (tmp_path / "generate.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "generate.py"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode != 0 and "KeyboardInterrupt" in stderr
    files = list(tmp_path.rglob("*.npz"))
    assert 3 <= len(files) < 5000
    assert all(find_damage(path, 8) is None for path in files)
    time.sleep(0.3)
    assert len(list(tmp_path.rglob("*.npz"))) == len(files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scan": {"size": 0}}, "size >= 1, got 0"),
        ({"num_train": 0}, "num_train of at least 1, got 0"),
        ({"num_val": -1}, "num_val of at least 1, got -1"),
        ({"num_test": 0}, "num_test of at least 1"),
        ({"foam": {"num_balls": 0}}, r"num_balls to be a range with 0 < low <= high, got \[0, 0\]"),
        ({"foam": {"num_balls": [9, 3]}}, r"got \[9, 3\]"),
        ({"foam": {"num_balls": [1, 2, 3]}}, "num_balls to be one number or a pair"),
        ({"foam": {"radius": [0.9, 0.3]}}, "radius to be a range"),
        ({"foam": {"radius": 1.5}}, r"fits into the cube \[-1, 1\]\^3, got 1.5"),
        ({"foam": {"half_height": [0.5, 1.1]}}, "half_height to be at most 1"),
        ({"foam": {"min_radius": 0.5}}, "min_radius < max_radius"),
        ({"scan": {"num_views": 0}}, "num_views >= 1, got 0"),
        ({"scan": {"photon_count": 0}}, "positive photon_count"),
        ({"scan": {"photon_count": -10}}, "got -10"),
        ({"scan": {"attenuation": 0}}, "positive, finite attenuation, got 0"),
        ({"scan": {"axis_noise_deg": -1}}, r"axis_noise_deg in \[0, 90\)"),
        ({"scan": {"fbp_filter": "ram-lak"}}, "one of ramp, .*got 'ram-lak'"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"num_workers": -1}, "num_workers of at least 0, got -1"),
        ({"generation_workers": -1}, "generation_workers of at least 0, got -1"),
        ({"seed": -3}, "seed of at least 0, got -3"),
        ({"generation_device": "gpuu"}, "generation_device as a device of this machine, got 'gpuu'"),
    ],
)
def test_bad_arguments_are_named_before_any_folder_is_made(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()
