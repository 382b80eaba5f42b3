"""LoDoPaB-CT against scikit-image, ODL and closed forms, and its files, whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import iradon

import predict as prediction
from src.ct.noise import add_poisson_noise
from src.datamodules import cached_arrays
from src.datamodules.case_cache import CachedCase
from src.datamodules.lodopab import LodopabDataModule
from src.datamodules.lodopab.demo import Ellipses, LodopabDemo
from src.datamodules.lodopab.files import MU_MAX_PER_M, SIDE_M, LodopabGeometry, find_shards
from src.runs import load_run
from tests.damage import bit_flips
from tests.untrained import untrained

GEOMETRY = LodopabGeometry(size=91, num_views=180, num_pixels=129)
TINY = {"size": 16, "num_views": 20, "num_pixels": 23, "reconstruction_workers": 0}


def ellipses() -> Ellipses:
    """An object without any symmetry."""
    return Ellipses(
        centres=np.array([[0.01, -0.02], [0.05, 0.03], [-0.06, 0.02]]),
        half_axes=np.array([[0.09, 0.06], [0.02, 0.01], [0.01, 0.03]]),
        angles_rad=np.array([0.3, 1.0, -0.4]),
        values=np.array([0.3, 0.4, -0.2]),
    )


def rmse(found: Any, expected: Any) -> float:
    """Relative to the range of the values."""
    return float(np.sqrt(np.mean((np.asarray(found) - expected) ** 2)) / np.ptp(expected))


def reconstruct(geometry: LodopabGeometry, observation: Any, filter_name: str) -> Any:
    return geometry.reconstruct(torch.from_numpy(np.asarray(observation)[None]), filter_name)[0].numpy()


def test_the_geometry_is_the_published_one() -> None:
    geometry = LodopabGeometry()
    assert geometry.truth_shape == (362, 362) and geometry.observation_shape == (1000, 513)
    assert geometry.angles_rad[[0, -1]] == pytest.approx([0.0005 * np.pi, 0.9995 * np.pi])
    assert geometry.pixel_m * 513 / 2 == pytest.approx(0.13 * np.sqrt(2)) and pytest.approx(81.35858) == MU_MAX_PER_M


@pytest.mark.parametrize("filter_name", ["ramp", "hann"])
def test_filtered_backprojections_are_those_of_scikit_image(filter_name: str) -> None:
    observation = ellipses().line_integrals(GEOMETRY)
    found = reconstruct(GEOMETRY, observation, filter_name)
    # scikit-image's pixels are as wide as the detector's: rows go along −y, columns along x.
    angles, side = np.rad2deg(GEOMETRY.angles_rad), 131
    dense = iradon(observation.T / GEOMETRY.pixel_m, angles, side, filter_name=filter_name, circle=False)
    centres = ((np.arange(91) + 0.5) / 91 - 0.5) * SIDE_M / GEOMETRY.pixel_m
    x, y = np.meshgrid(centres, centres, indexing="ij")
    expected = map_coordinates(dense, [side // 2 - y, side // 2 + x], order=3)
    assert rmse(found, expected) < 0.01


def test_filtered_backprojections_are_the_truth_in_its_place_and_unit() -> None:
    found = reconstruct(GEOMETRY, ellipses().line_integrals(GEOMETRY), "ramp")
    assert rmse(gaussian_filter(found, 2), gaussian_filter(ellipses().image(GEOMETRY), 2)) < 0.01


def test_line_integrals_are_those_of_odl() -> None:
    odl = pytest.importorskip("odl")
    tomo = getattr(odl, "tomo", None) or odl.applications.tomo
    pytest.importorskip("astra")
    corner = SIDE_M / 2
    space = odl.uniform_discr([-corner] * 2, [corner] * 2, GEOMETRY.truth_shape, dtype="float32")
    beam = tomo.parallel_beam_geometry(space, GEOMETRY.num_views, det_shape=(GEOMETRY.num_pixels,))
    projector = tomo.RayTransform(space, beam, impl="astra_cpu")
    assert np.allclose(np.ravel(beam.angles), GEOMETRY.angles_rad)
    observation = projector(space.element(ellipses().image(GEOMETRY).astype(np.float32))).asarray()
    assert rmse(ellipses().line_integrals(GEOMETRY), observation) < 0.01


def make(folder: Path, **settings: Any) -> LodopabDataModule:
    counts = {"num_train": 130, "num_val": 3, "num_test": 2}
    settings = {"cache_dir": str(folder / "cache"), **TINY, **counts, **settings}
    return LodopabDataModule(str(folder), **settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the layout of the published one, of two files for training."""
    folder = tmp_path_factory.mktemp("lodopab")
    demo = make(folder, demo=LodopabDemo(num_details=3))
    demo.prepare_data()
    return demo.data_dir


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    for path in data.glob("*.hdf5"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def prepared(folder: Path, **settings: Any) -> LodopabDataModule:
    datamodule = make(folder, **settings)
    datamodule.prepare_data()
    return datamodule


def read(folder: Path, kind: str, part: str) -> Any:
    with h5py.File(folder / f"{kind}_{part}.hdf5") as file:
        return file["data"][:]


def test_the_demo_has_the_published_layout(data: Path) -> None:
    parts = {"train_000": 128, "train_001": 2, "validation_000": 3, "test_000": 2}
    kinds = {"ground_truth": (16, 16), "observation": (20, 23)}
    expected = {f"{kind}_{part}.hdf5": (n, *shape) for part, n in parts.items() for kind, shape in kinds.items()}
    assert {path.name for path in data.glob("*.hdf5")} == set(expected)
    for name, shape in expected.items():
        with h5py.File(data / name) as file:
            images = file["data"][:]
        assert images.shape == shape and images.dtype == np.float32 and np.isfinite(images).all()
    truths = read(data, "ground_truth", "train_000")
    assert truths.min() >= 0 and 0.2 < truths.max() < 1.5
    assert len({truth.tobytes() for truth in truths}) == 128


@pytest.mark.parametrize("kind", ["fbp", "sinogram"])
def test_samples_are_the_slices_of_the_files(kind: Any, data: Path) -> None:
    datamodule = prepared(data, input=kind, fbp_filter="ramp")
    assert [len(datamodule.dataset(split)) for split in ("train", "val", "test")] == [130, 3, 2]
    sample = datamodule.dataset("train")[129]
    assert sample["input"].shape == datamodule.sample_shape and sample["target"].shape == datamodule.target_shape
    assert np.array_equal(sample["target"][0], read(data, "ground_truth", "train_001")[1])
    observation = read(data, "observation", "train_001")[1]
    expected = reconstruct(datamodule.geometry, observation, "ramp") if kind == "fbp" else observation
    np.testing.assert_allclose(sample["input"][0], expected, atol=1e-5)
    batches = [batch["index"].tolist() for batch in datamodule.val_dataloader()]
    assert batches == [[0], [1], [2]]


def test_the_unused_truths_at_the_end_of_a_part_are_ignored(own_data: Path) -> None:
    # The published files of truths have 128 images, also the last one of a part.
    truths = read(own_data, "ground_truth", "test_000")
    with h5py.File(own_data / "ground_truth_test_000.hdf5", "w") as file:
        file["data"] = np.concatenate([truths, np.full((126, 16, 16), np.nan, np.float32)])
    assert len(prepared(own_data).dataset("test")) == 2


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def text(path: Path) -> None:
    path.write_text("<html>403 Forbidden</html>")


def rewritten(name: str, images: Any) -> Any:
    def damage(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file[name] = images

    return damage


def with_nan(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["data"][1, 3, 4] = np.nan


DAMAGES = [
    (remove, r"hdf5': No such file or directory\n"),
    (cut, "truncated file"),
    (text, "file signature not found"),
    (rewritten("images", np.zeros((3, 16, 16), np.float32)), "no 'data', but images"),
    (rewritten("data/images", np.zeros((3, 16, 16), np.float32)), "no floating-point numbers, but a group"),
    (rewritten("data", np.zeros((3, 16, 16), np.int16)), "no floating-point numbers, but int16"),
    (rewritten("data", np.zeros((3, 16, 17), np.float32)), r"shape \(3, 16, 17\)"),
    (rewritten("data", np.zeros((1, 16, 16), np.float32)), r"shape \(1, 16, 16\)"),
    (with_nan, "infinite or NaN values in images 1"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_files_are_listed_together_before_training(damage: Any, message: str, own_data: Path) -> None:
    paths = [own_data / "ground_truth_test_000.hdf5", own_data / "ground_truth_validation_000.hdf5"]
    for path in paths:
        damage(path)
    for _ in range(2):  # the second time from the records
        with pytest.raises(ValueError, match=message) as caught:
            prepared(own_data)
        first, *lines = str(caught.value).splitlines()
        assert "got 2 problems. Download the files again, or use only the first slices" in first
        assert [str(path) in line for path, line in zip(paths, lines, strict=True)] == [True, True]


def test_many_problems_are_counted_and_archives_named(tmp_path: Path) -> None:
    (tmp_path / "observation_test.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got 672 problems\. .* observation_test\.zip may have them: unpack them\."):
        prepared(tmp_path, num_train=None, num_val=None, num_test=None)
    with pytest.raises(ValueError, match=r"\n  669 more like test_000: .* and 639 more$"):
        prepared(tmp_path, num_train=None, num_val=None, num_test=None)


def test_a_missing_folder_says_where_to_get_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unpacked files .*zenodo.3384092.*does not exist\. datamodule=lodopab_demo"):
        prepared(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train": 35821}, "num_train to be at most 35820, got 35821"),
        ({"num_val": 0}, "num_val of at least 1"),
        ({"input": "fpb"}, "input"),
        ({"fbp_filter": "sinc"}, "fbp_filter"),
        ({"size": 0}, "size of at least 1"),
        ({"demo": LodopabDemo(), "num_test": None}, "as numbers for the demo, got null"),
        ({"reconstruction_device": "gpu"}, "reconstruction_device as a device of this machine"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)


def test_slices_are_reconstructed_once_and_again_when_files_change(
    own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = LodopabGeometry.reconstruct
    monkeypatch.setattr(LodopabGeometry, "reconstruct", lambda *a: made.append(a[2]) or original(*a))
    prepared(own_data, num_train=3)
    assert len(made) == 3
    prepared(own_data, num_train=2)
    assert len(made) == 4  # of the first file, beside the other
    prepared(own_data, num_train=3)
    assert len(made) == 4
    with h5py.File(own_data / "observation_test_000.hdf5", "r+") as file:
        file["data"][:] = 0
    datamodule = prepared(own_data, num_train=3)
    assert len(made) == 5 and not datamodule.dataset("test")[0]["input"].any()


def test_every_flipped_bit_of_a_reconstruction_is_found_and_named(own_data: Path) -> None:
    datamodule = prepared(own_data)
    [shard] = find_shards(own_data, "test", 2)
    for path in datamodule.cache.folder.glob("fbp_test_000_first_2.*"):
        for _ in bit_flips(path, 30):
            cached_arrays._check_once.cache_clear()
            with pytest.raises(ValueError, match=f"'{path}'"):
                cached = datamodule.cache.load(shard)
                assert isinstance(cached, CachedCase)
                cached.array("fbp")


def test_the_demo_does_not_depend_on_how_many_slices_there_are(data: Path, tmp_path: Path) -> None:
    fewer = prepared(tmp_path, num_train=2, demo=LodopabDemo(num_details=3)).data_dir
    assert fewer != data
    for kind in ("ground_truth", "observation"):
        assert np.array_equal(read(fewer, kind, "train_000"), read(data, kind, "train_000")[:2])


def test_noise_is_that_of_4096_photons() -> None:
    integral = 0.03  # of the published unit: 360 photons arrive
    noisy = add_poisson_noise(np.full(100_000, integral), 4096.0, MU_MAX_PER_M, np.random.default_rng(0), 0.1)
    deviation = 1 / np.sqrt(4096 * np.exp(-MU_MAX_PER_M * integral)) / MU_MAX_PER_M
    assert noisy.std() == pytest.approx(deviation, rel=0.02)
    dark = add_poisson_noise(np.full(3, 9.0), 4096.0, MU_MAX_PER_M, np.random.default_rng(0), 0.1)
    assert dark == pytest.approx(-np.log(0.1 / 4096) / MU_MAX_PER_M)


@pytest.mark.parametrize("kind", ["fbp", "sinogram"])
def test_a_prediction_has_what_the_network_makes_of_each_observation(kind: Any, data: Path, tmp_path: Path) -> None:
    datamodule = prepared(data, input=kind)
    source = data / "observation_validation_000.hdf5"
    target = tmp_path / datamodule.prediction_name(source.name)
    datamodule.predict_file(source, target, lambda x: 2 * x[..., :16, :16])
    found = read(tmp_path, "reconstruction", "validation_000")
    assert found.dtype == np.float32
    for image, sample in zip(found, datamodule.dataset("val"), strict=True):  # type: ignore[arg-type]
        np.testing.assert_allclose(image, 2 * sample["input"][0, :16, :16], atol=1e-6)


def test_a_run_predicts_files_of_observations(data: Path, tmp_path: Path) -> None:
    counts = [f"datamodule.num_{split}={count}" for split, count in (("train", 130), ("val", 3), ("test", 2))]
    sizes = ["datamodule.size=16", "datamodule.num_views=20", "datamodule.num_pixels=23"]
    small = ["network.blowup=4", "network.num_levels=2", "network.num_couplings=1"]
    own = ["experiment=ct_slices", "datamodule=lodopab", f"datamodule.data_dir={data}"]
    run = untrained(tmp_path / "run", *own, *counts, *sizes, *small)
    arguments = [f"ckpt={run}", f"output={tmp_path / 'out'}", f"input={data / 'observation_test_000.hdf5'}"]
    assert prediction.predict(*prediction.load(arguments)) == 1
    found = read(tmp_path / "out", "reconstruction", "test_000")
    loaded = load_run(run)
    net = loaded.net
    for image, sample in zip(found, prepared(data).dataset("test"), strict=True):  # type: ignore[arg-type]
        with torch.no_grad():
            np.testing.assert_allclose(image, net(sample["input"][None])[0, 0], atol=1e-5)
        np.testing.assert_allclose(loaded(sample["input"].numpy())[0], image, atol=1e-5)
    for image, observation in zip(found, read(data, "observation", "test_000"), strict=True):
        np.testing.assert_allclose(loaded(observation)[0], image, atol=1e-5)
    with pytest.raises(ValueError, match=r"an observation \(1, 20, 23\), or its filtered backprojection \(1, 16, 16\)"):
        loaded(np.zeros((20, 16), np.float32))
    with pytest.raises(ValueError, match=r"got 1 that are not.*\n.*ground_truth_test_000.*shape \(2, 16, 16\)"):
        prediction.predict(*prediction.load([*arguments[:2], f"input={data / 'ground_truth_test_000.hdf5'}"]))
