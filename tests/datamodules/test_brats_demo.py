import inspect
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy.ndimage import label as components

from src.config.composition import CONFIG_DIR
from src.config.targets import check_targets
from src.datamodules.brats import BratsDataModule
from src.datamodules.brats.demo import BratsDemo
from src.datamodules.brats.phantom import Tumour, make_phantom
from src.datamodules.brats.releases import ED, ET, MODALITIES, NCR
from src.datamodules.volumes.cases import CLASSES
from src.utils.nifti import write_volume

SHAPE = (40, 44, 36)


@pytest.fixture(scope="module")
def demo():
    return BratsDemo(num_cases=8, shape=SHAPE, low_grade_fraction=0.5)


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    folder = demo.folder(tmp_path_factory.mktemp("demo"))
    demo.write(folder, 0)
    return folder


def read(case):
    """The four modalities and the labels, as they are in the files."""
    files = {role: nib.load(case / f"{case.name}_{role}.nii.gz") for role in (*MODALITIES, "seg")}
    return {role: np.asarray(image.dataobj) for role, image in files.items()}, files


def cases(folder, grade="*"):
    return sorted(path for path in folder.glob(f"{grade}/*") if path.is_dir())


def test_files_are_those_of_2018(demo, folder):
    assert [path.parent.name for path in cases(folder)] == ["HGG"] * 4 + ["LGG"] * 4
    for case in cases(folder):
        assert case.name.startswith("Brats18_")
        assert sorted(path.name for path in case.iterdir()) == sorted(
            f"{case.name}_{role}.nii.gz" for role in (*MODALITIES, "seg")
        )
        volumes, files = read(case)
        for role, image in files.items():
            assert image.get_data_dtype() == np.int16 and image.shape == SHAPE
            assert image.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, SHAPE[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]
            assert volumes[role].min() == 0
        brain = volumes["t1"] > 0
        assert all(np.array_equal(volumes[m] > 0, brain) for m in MODALITIES)  # skull-stripped together
        assert 0.2 < brain.mean() < 0.5 and components(brain)[1] == 1
        assert not (volumes["seg"] > 0)[~brain].any()


def test_tumours_are_nested_and_some_do_not_enhance(folder):
    without = 0
    for case in cases(folder):
        labels = read(case)[0]["seg"]
        assert set(np.unique(labels)) <= {0, 1, 2, 4}
        whole, core, enhancing = labels > 0, np.isin(labels, (1, 4)), labels == 4
        assert (labels == 2).sum() > 20 and core.sum() > 20
        without += not enhancing.any()
        if case.parent.name == "HGG":
            assert enhancing.sum() > 20
        brain = (read(case)[0]["t1"] > 0).sum()
        assert 0.01 < whole.sum() / brain < 0.4
    assert without == 2


def test_contrasts_are_those_of_the_modalities(folder):
    def means(volumes, mask):
        return {m: np.median(volumes[m][mask]) for m in MODALITIES}

    for case in cases(folder, "HGG"):
        volumes, _ = read(case)
        labels = volumes["seg"]
        healthy = means(volumes, (labels == 0) & (volumes["t1"] > 0))
        edema, enhancing = means(volumes, labels == 2), means(volumes, labels == 4)
        assert edema["flair"] > 1.2 * healthy["flair"] and edema["t2"] > 1.1 * healthy["t2"]
        assert edema["t1"] < healthy["t1"]
        assert enhancing["t1ce"] / enhancing["t1"] > 1.5 * healthy["t1ce"] / healthy["t1"]  # it takes up the agent


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tumour", [Tumour(False, True), Tumour(True, True), Tumour(True, False)])
def test_the_smallest_scan_has_a_core_and_edema(tumour, seed):
    classes = make_phantom(np.random.default_rng(seed), (24, 24, 24), tumour, 0.04, 0.1).classes
    assert (classes == ED).any() and np.isin(classes, (NCR, ET)).any()
    assert (classes == ET).any() == tumour.enhancing


def test_cases_differ_and_are_the_same_again(demo, folder, tmp_path):
    again = demo.folder(tmp_path)
    demo.write(again, 0)
    assert again.name == folder.name
    contents = []
    for case in cases(folder):
        for path in sorted(case.iterdir()):
            contents.append(path.read_bytes())
            assert (again / path.relative_to(folder)).read_bytes() == contents[-1]
    assert len(set(contents)) == len(contents)


def test_resumes_with_what_is_missing(demo, folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    missing, kept = cases(copy)[:2]
    shutil.rmtree(missing)
    (missing.parent / "abc.tmp").mkdir()
    (missing.parent / "abc.tmp" / "half.nii.gz").write_bytes(b"half")
    (copy / "parameters.json.xyz.tmp").write_bytes(b"half")
    stamp = kept.stat().st_mtime_ns
    demo.write(copy, 0)
    assert kept.stat().st_mtime_ns == stamp and len(list(missing.iterdir())) == 5
    assert not list(copy.rglob("*.tmp"))
    assert json.loads((copy / "parameters.json").read_text())["num_cases"] == 8


def test_an_interruption_leaves_no_half_case(demo, tmp_path, monkeypatch):
    def interrupted(path, voxels, affine):
        if len(list(path.parent.iterdir())) == 2:
            raise KeyboardInterrupt
        write_volume(path, voxels, affine)

    folder = demo.folder(tmp_path)
    monkeypatch.setattr("src.datamodules.brats.demo.write_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.write(folder, 0)
    assert cases(folder) == [] and not list(folder.rglob("*.nii.gz"))


def test_a_complete_set_is_only_looked_at(demo, folder, monkeypatch):
    monkeypatch.setattr("src.datamodules.cached_files.require_writable", None)
    monkeypatch.setattr("src.datamodules.brats.demo.run_parallel", None)
    demo.write(folder, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"num_cases": 9},
        {"shape": (40, 44, 40)},
        {"low_grade_fraction": 0.4},
        {"noise": 0.1},
        {"bias": 0.3},
        {"seed": 1},
    ],
)
def test_every_parameter_is_in_the_folders_name(change, demo):
    parameters = {"num_cases": 8, "shape": SHAPE, "low_grade_fraction": 0.5}
    assert BratsDemo(**parameters).folder(Path()) == demo.folder(Path())
    assert BratsDemo(**{**parameters, "shape": list(SHAPE)}).folder(Path()) == demo.folder(Path())
    assert BratsDemo(**{**parameters, **change}).folder(Path()) != demo.folder(Path())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cases": 2}, "num_cases of at least 3, got 2"),
        ({"shape": (48, 56)}, r"shape as three numbers of voxels of at least 24, got \[48, 56\]"),
        ({"shape": (48, 56, 8)}, r"got \[48, 56, 8\]"),
        ({"low_grade_fraction": 1.5}, "low_grade_fraction from 0 to 1, got 1.5"),
        ({"noise": -1}, "noise of at least 0, got -1"),
        ({"bias": -1}, "bias of at least 0, got -1"),
        ({"seed": -1}, "seed of at least 0, got -1"),
    ],
)
def test_bad_parameters_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        BratsDemo(**change)


def test_noise_and_bias_do_what_they_say(tmp_path):
    def scans(**parameters):
        demo = BratsDemo(num_cases=3, shape=(32, 32, 32), low_grade_fraction=0.0, **parameters)
        demo.write(demo.folder(tmp_path), 0)
        return [read(case)[0]["t1"].astype(float) for case in cases(demo.folder(tmp_path))]

    def roughness(scan):
        inside = scan[12:20, 12:20, 12:20]
        return np.abs(np.diff(inside, axis=0)).mean() / inside.mean()

    clean, noisy = scans(noise=0.0, bias=0.0), scans(noise=0.3, bias=0.0)
    assert min(map(roughness, noisy)) > 2 * max(map(roughness, clean))
    biased = scans(noise=0.0, bias=0.8)
    spread = [np.std(np.log(scan[scan > 0])) for scan in biased]
    assert np.mean(spread) > 1.5 * np.mean([np.std(np.log(scan[scan > 0])) for scan in clean])


def test_the_datamodule_writes_and_reads_it(tmp_path):
    demo = BratsDemo(num_cases=4, shape=(28, 28, 28))
    datamodule = BratsDataModule(
        str(tmp_path / "demo"),
        cache_dir=str(tmp_path / "cache"),
        size=(16, 16, 16),
        preprocessing_workers=0,
        demo=demo,
    )
    datamodule.prepare_data()
    datamodule.setup()
    batch = next(iter(datamodule.train_dataloader()))
    assert batch["image"].shape == (1, 4, 16, 16, 16) and batch["label"].shape == (1, 16, 16, 16)
    found = {int(c) for case in datamodule.cases["train"] for c in np.unique(case.array(CLASSES))}
    assert found == {0, NCR, ED, ET}


def test_the_demo_is_of_2018():
    with pytest.raises(ValueError, match="release 2018, the layout of the demo, got 2023"):
        BratsDataModule(release=2023, demo=BratsDemo())


@pytest.mark.parametrize("name", ["brats", "brats_demo"])
def test_configurations_give_every_argument(name, tmp_path):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose(f"datamodule/{name}").datamodule
    check_targets(config)
    for node, kind in ((config, BratsDataModule), (config.demo, BratsDemo)):
        if node is not None:
            assert set(node) - {"_target_"} == set(inspect.signature(kind).parameters)
    datamodule = instantiate(config)
    assert datamodule.sample_shape[0] == 4
    assert (datamodule.demo is None) == (name == "brats")
    if name == "brats":
        assert datamodule.sample_shape == (4, 160, 192, 128)


@pytest.mark.slow
def test_processes_write_the_same_set(demo, folder, tmp_path):
    parallel = demo.folder(tmp_path)
    demo.write(parallel, 2)
    for case in cases(folder):
        for path in case.iterdir():
            assert (parallel / path.relative_to(folder)).read_bytes() == path.read_bytes()
