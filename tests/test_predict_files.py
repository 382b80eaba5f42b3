"""predict.py on the user's own image files: restored images, probabilities, and what a flow makes of them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import predict as prediction
from src.datamodules.pairs import PairsDataModule
from src.runs import load_run
from src.runs.predictions.images import restore
from src.runs.predictions.jobs import PredictionPlan
from src.tasks.latent_path import spherical
from src.utils.errors import ConfigError
from src.utils.image_files import read_stored
from tests.pair_files import AFFINE, write_image
from tests.untrained import untrained

SMALL = ["network.blowup=4", "network.num_levels=2", "network.num_couplings=1", "datamodule.size=16"]
FLOW = ["experiment=iconvnet_table2", "datamodule=mnist", "model=glow", "network.glow.num_steps=1"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def volumes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("volumes") / "run", "experiment=restoration", *SMALL)


@pytest.fixture(scope="module")
def slices_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flat = ["datamodule.spatial_dims=2", "datamodule.window=[0,255]"]
    return untrained(tmp_path_factory.mktemp("slices") / "run", "experiment=restoration", *SMALL, *flat)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("flow") / "run", *FLOW, "network.glow.hidden_channels=4")


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "more/c.png", "more/d.png"):
        write_image(tmp_path / "digits" / name, RNG.integers(256, size=(28, 28), dtype=np.uint8))
    return tmp_path / "digits"


def predict(run: Path, output: Path, *arguments: str) -> int:
    return prediction.predict(*prediction.load([f"ckpt={run}", f"output={output}", *arguments]))


def names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "predictions.json")
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_restored_volumes_have_the_names_formats_affines_and_values_of_their_inputs(
    volumes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    volume = (1000 + 300 * RNG.random((19, 17, 16))).astype(np.float32)
    files = ["a.nii.gz", "x/b.nii", "c.npy", "d.npz", "e.h5", "f.tif", "g.mha", "h.nrrd"]
    for name in files:
        write_image(tmp_path / "in" / name, volume)
    command = ["predict.py", f"ckpt={volumes_run}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", command)
    prediction.main()
    assert "8 restored images written" in capsys.readouterr().out
    assert names(tmp_path / "out") == sorted(files)
    expected = load_run(volumes_run)(volume)[0]
    for name in files:
        source, restored = (read_stored(tmp_path / side / name) for side in ("in", "out"))
        assert restored.values.shape == source.values.shape and restored.values.dtype == np.float32
        assert np.allclose(restored.values, expected, rtol=1e-6)
        if source.affine is not None and restored.affine is not None:
            assert np.allclose(restored.affine, source.affine)
    header = nib.load(tmp_path / "out" / "a.nii.gz").header  # type: ignore[attr-defined]
    assert np.allclose(header.get_best_affine(), AFFINE)


def test_a_file_of_integers_is_restored_to_real_numbers_and_a_picture_to_its_grey_values(
    volumes_run: Path, slices_run: Path, tmp_path: Path
) -> None:
    volume = RNG.integers(-1000, 1000, (16, 16, 16), np.int16)
    write_image(tmp_path / "scan.nii.gz", volume)
    assert predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'scan.nii.gz'}") == 1
    assert np.allclose(read_stored(tmp_path / "out/scan.nii.gz").values, load_run(volumes_run)(volume)[0], rtol=1e-5)

    grey = RNG.integers(256, size=(20, 18), dtype=np.uint8)
    write_image(tmp_path / "in/slice.png", grey)
    Image.fromarray(grey).save(tmp_path / "in/photo.jpg")
    assert predict(slices_run, tmp_path / "pictures", f"input={tmp_path / 'in'}") == 2
    assert names(tmp_path / "pictures") == ["photo.png", "slice.png"]  # JPEG would lose what was restored
    expected = np.clip(np.rint(load_run(slices_run)(grey)[0]), 0, 255)
    assert np.array_equal(read_stored(tmp_path / "pictures/slice.png").values, expected)


def test_a_picture_is_restored_to_tiff_where_its_integers_cannot_hold_the_values(tmp_path: Path) -> None:
    flat = ["datamodule.spatial_dims=2", "datamodule.window=[0,255]", "datamodule.target_window=[0,1]"]
    run = untrained(tmp_path / "run", "experiment=restoration", *SMALL, *flat)
    grey = RNG.integers(256, size=(20, 18), dtype=np.uint8)
    write_image(tmp_path / "in/a.png", grey)
    write_image(tmp_path / "in/b.npy", grey)
    assert predict(run, tmp_path / "out", f"input={tmp_path / 'in'}") == 2
    assert names(tmp_path / "out") == ["a.tif", "b.npy"]
    expected = load_run(run)(grey)[0]
    for name in ("a.tif", "b.npy"):
        assert np.allclose(read_stored(tmp_path / "out" / name).values, expected, rtol=1e-5)


class MeanOfChannels(NamedTuple):
    datamodule: PairsDataModule

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image.mean(axis=0, keepdims=True)


@pytest.mark.parametrize("name", ["a.nii", "a.npy", "a.png"])
def test_one_channel_of_several_has_no_axis_of_channels(name: str, tmp_path: Path) -> None:
    values = RNG.integers(256, size=(12, 11, 3), dtype=np.uint8)
    write_image(tmp_path / name, values)
    datamodule = PairsDataModule(spatial_dims=2, channels=3, channel_axis="last")
    restore(MeanOfChannels(datamodule), tmp_path / name, tmp_path / "out" / name)  # type: ignore[arg-type]
    restored = read_stored(tmp_path / "out" / name).values
    assert restored.shape == (12, 11) and np.abs(restored - values.mean(-1)).max() <= 0.5


def test_a_prediction_goes_on_where_it_stopped_and_mixes_no_networks(
    volumes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a.npy", "b.npy"):
        write_image(tmp_path / "in" / name, RNG.random((16, 16, 16), np.float32))
    arguments = (f"input={tmp_path / 'in'}",)
    assert predict(volumes_run, tmp_path / "out", *arguments) == 2
    (tmp_path / "out/b.npy").unlink()
    assert predict(volumes_run, tmp_path / "out", *arguments) == 1
    assert "1 of 2 are there already (overwrite=true replaces them)" in capsys.readouterr().out
    assert predict(volumes_run, tmp_path / "out", *arguments, "overwrite=true") == 2
    other = untrained(tmp_path / "other", "experiment=restoration", *SMALL)
    with pytest.raises(ValueError, match=r"got restored images with checkpoint.*overwrite=true replaces them"):
        predict(other, tmp_path / "out", *arguments)
    with pytest.raises(ValueError, match=r"got restored images with overlap 0\.25"):
        predict(volumes_run, tmp_path / "out", *arguments, "task.overlap=0.5")


def test_predictions_of_other_inputs_or_data_settings_are_not_mixed(volumes_run: Path, tmp_path: Path) -> None:
    for name in ("in", "more"):
        write_image(tmp_path / name / "a.npy", RNG.random((16, 16, 16), np.float32))
    assert predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}") == 1
    with pytest.raises(ValueError, match=r"got restored images with input '.*/in'; overwrite"):
        predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'more'}")
    for changed, message in (
        ("datamodule.window=[0,1]", "with datamodule '"),
        ("trainer.precision=bf16-mixed", "with precision '?32"),
    ):
        with pytest.raises(ValueError, match=f"got restored images {message}"):
            predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}", changed)
    # The same, read otherwise.
    same = (f"input={tmp_path / 'in/a.npy'}", "datamodule.batch_size=7", "datamodule.num_workers=1")
    assert predict(volumes_run, tmp_path / "out", *same) == 0


def test_an_interrupted_replacement_leaves_no_files_of_the_former_network(
    volumes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.npy", "b.npy"):
        write_image(tmp_path / "in" / name, RNG.random((16, 16, 16), np.float32))
    arguments = (tmp_path / "out", f"input={tmp_path / 'in'}")
    predict(volumes_run, *arguments)
    other = untrained(tmp_path / "other", "experiment=restoration", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(PredictionPlan, "run", lambda plan, overwrite: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(other, *arguments, "overwrite=true")
    assert names(tmp_path / "out") == []
    assert predict(other, *arguments) == 2


def test_bad_images_are_named_together_after_the_good_ones(volumes_run: Path, tmp_path: Path) -> None:
    volume = RNG.random((16, 16, 16), np.float32)
    bad = volume.copy()
    bad[0, 0, 0] = np.nan
    for name, values in {
        "good.npy": volume,
        "nan.npy": bad,
        "flat.npy": volume[0],
        "constant.npy": 0 * volume,
        "two.npy": np.stack([volume, volume]),
    }.items():
        write_image(tmp_path / "in" / name, values)
    (tmp_path / "in/cut.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="got 5 that are not; 1 restored images were written") as caught:
        predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}")
    for line in (
        "cut.nii.gz: expected a whole NIfTI file",
        "nan.npy: expected finite values, got 1 infinite or NaN",
        r"flat.npy: expected 3 spatial axes (datamodule.spatial_dims)",
        "constant.npy: expected values that differ",
        "two.npy: expected 1 channels (datamodule.channels)",
    ):
        assert line in str(caught.value)
    assert names(tmp_path / "out") == ["good.npy"]


def test_images_with_one_problem_are_listed_in_one_line(volumes_run: Path, tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / f"in/{number}.npy", np.zeros((16, 16 + number)))
    (tmp_path / "in/cut.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="got 9 that are not; 0 restored images were written") as caught:
        predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}")
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 5 and lines[4].startswith(f"  5 more like {tmp_path}/in/0.npy: {tmp_path}/in/3.npy, ")


@pytest.mark.parametrize("part", ["", "test/"])
def test_targets_that_would_be_restored_too_are_told(
    part: str, volumes_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    volume = RNG.random((16, 16, 16), np.float32)
    for name in (f"{part}input/a.npy", f"{part}target/a.npy", "b.npy"):
        write_image(tmp_path / "in" / name, volume)
    assert predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}") == 3
    place = f"{tmp_path}/in/{part}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"note: 1 of the 3 files in {tmp_path}/in are in {place}target, where the training has its targets; "
        f"input={place}input restores the inputs alone"
    )
    assert predict(volumes_run, tmp_path / "one", f"input={place}input") == 1
    assert "targets" not in capsys.readouterr().err


def test_inputs_and_outputs_that_cannot_be_are_refused(volumes_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    for given, found in (("empty", "has none"), ("nowhere", "does not exist"), ("notes.txt", "is another file")):
        with pytest.raises(ValueError, match=f"got .*{given}, which {found}"):
            predict(volumes_run, tmp_path / "out", f"input={tmp_path / given}")
    write_image(tmp_path / "in/a.npy", RNG.random((16, 16, 16), np.float32))
    with pytest.raises(ValueError, match="expected output=<another folder than that of"):
        predict(volumes_run, tmp_path / "in", f"input={tmp_path / 'in'}")
    with pytest.raises(ConfigError, match=r"expected output=<folder>, got .*notes\.txt, which is a file"):
        predict(volumes_run, tmp_path / "notes.txt", f"input={tmp_path / 'in'}")
    for name in ("one.png", "scan.NII.GZ"):
        with pytest.raises(ConfigError, match=rf"expected output=<folder>, got .*{name}, the name of an image file"):
            predict(volumes_run, tmp_path / name, f"input={tmp_path / 'in'}")
        (tmp_path / name).mkdir()  # of an earlier prediction
        assert predict(volumes_run, tmp_path / name, f"input={tmp_path / 'in'}") == 1
    for changed, message in (
        ("mode=encode", "expected mode=encode for a flow, got a run of Reconstruction"),
        ("mode=encod", "expected mode to be one of sample"),
        ("temperature=hot", "expected temperature to be a number"),
        ("num_steps=1", "expected num_steps of at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(volumes_run, tmp_path / "out", f"input={tmp_path / 'in'}", changed)
    assert not (tmp_path / "out").exists()


def test_precision_is_the_trainers_and_one_process_does_the_work(volumes_run: Path, tmp_path: Path) -> None:
    volume = RNG.random((16, 16, 16), np.float32)
    write_image(tmp_path / "a.npy", volume)
    arguments = (f"input={tmp_path / 'a.npy'}", "trainer.precision=bf16-mixed")
    assert predict(volumes_run, tmp_path / "out", *arguments) == 1
    exact, rounded = load_run(volumes_run)(volume)[0], np.load(tmp_path / "out/a.npy")
    assert not np.array_equal(rounded, exact) and np.allclose(rounded, exact, atol=0.05)
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    with pytest.raises(ValueError, match=r"expected trainer\.devices=1 with input=…, got 2 processes"):
        predict(volumes_run, tmp_path / "two", f"input={tmp_path / 'a.npy'}", *two)


def test_two_images_that_would_give_one_file_are_named(slices_run: Path, tmp_path: Path) -> None:
    grey = RNG.integers(256, size=(16, 16), dtype=np.uint8)
    for name in ("a.png", "a.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "in" / name)
    with pytest.raises(ValueError, match=r"got .*a\.jpg and .*a\.png, which both give .*a\.png"):
        predict(slices_run, tmp_path / "out", f"input={tmp_path / 'in'}")


def test_class_probabilities_are_a_table(digits: Path, tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", "experiment=irevnet_lab")
    assert predict(run, tmp_path / "out", f"input={digits}") == 4
    found = rows(tmp_path / "out/probabilities.csv")
    assert [row["file"] for row in found] == ["a.png", "b.png", "more/c.png", "more/d.png"]
    net: Any = load_run(run).net
    for row in found:
        image = torch.from_numpy(read_stored(digits / row["file"]).values.copy()).float() / 255
        with torch.no_grad():
            expected = net(image[None, None]).softmax(1)[0].numpy()
        assert np.allclose([float(row[str(name)]) for name in range(10)], expected, atol=1e-6)
        assert row["prediction"] == str(expected.argmax())
    with pytest.raises(ValueError, match=r"expected no .*probabilities\.csv, got one; overwrite=true replaces it"):
        predict(run, tmp_path / "out", f"input={digits}")
    write_image(tmp_path / "wide.png", np.zeros((28, 30), np.uint8))
    with pytest.raises(ValueError, match=r"wide\.png: expected an image of shape \(1, 28, 28\), got \(1, 28, 30\)"):
        predict(run, tmp_path / "other", f"input={tmp_path / 'wide.png'}")


def test_all_images_that_a_folder_trains_with_are_predicted(tmp_path: Path) -> None:
    data = ["datamodule=image_folder", "image.size=8", "image.num_classes=2"]
    run = untrained(tmp_path / "run", "experiment=irevnet_lab", "model=convnet", "network.convnet.width=4", *data)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.webp", "c.PPM", "d.pgm", "notes.npy"):
        Image.fromarray(RNG.integers(256, size=(8, 8), dtype=np.uint8)).save(tmp_path / "in" / name, format="PNG")
    assert predict(run, tmp_path / "out", f"input={tmp_path / 'in'}") == 4
    assert [row["file"] for row in rows(tmp_path / "out/probabilities.csv")] == ["a.png", "b.webp", "c.PPM", "d.pgm"]
    assert predict(run, tmp_path / "one", f"input={tmp_path / 'in' / 'b.webp'}") == 1
    with pytest.raises(ConfigError, match=r"\.webp\), or a folder of them>, got .*notes\.npy, which is another file"):
        predict(run, tmp_path / "other", f"input={tmp_path / 'in' / 'notes.npy'}")


def test_images_in_colour_that_become_grey_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = ["datamodule=image_folder", "image.size=8", "image.num_classes=2", "image.channels=1"]
    run = untrained(tmp_path / "run", "experiment=irevnet_lab", "model=convnet", "network.convnet.width=4", *data)
    for name, shape in (("a.png", (8, 8)), ("b.png", (8, 8, 3)), ("small.png", (4, 4, 3))):
        write_image(tmp_path / "in" / name, RNG.integers(256, size=shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="got 1 that are not"):
        predict(run, tmp_path / "out", f"input={tmp_path / 'in'}")
    note = "note: 1 of 2 images have colours, of which image.channels=1 takes the luminance"
    assert capsys.readouterr().err.splitlines()[-1] == note


def test_a_flow_of_a_folder_encodes_its_images_and_decodes_latents(tmp_path: Path) -> None:
    data = ["datamodule=image_folder", "image.size=8", "image.channels=1"]
    run = untrained(tmp_path / "run", *FLOW[:1], *FLOW[2:], "network.glow.hidden_channels=4", *data)
    (tmp_path / "in").mkdir()
    Image.fromarray(RNG.integers(256, size=(8, 8), dtype=np.uint8)).save(tmp_path / "in/a.webp", lossless=True)
    assert predict(run, tmp_path / "latents", f"input={tmp_path / 'in'}", "mode=encode") == 1
    assert names(tmp_path / "latents") == ["a.npy"]
    assert predict(run, tmp_path / "images", f"input={tmp_path / 'latents'}", "mode=decode") == 1


def test_latents_decode_to_their_images(flow: Path, digits: Path, tmp_path: Path) -> None:
    assert predict(flow, tmp_path / "latents", f"input={digits}", "mode=encode") == 4
    assert names(tmp_path / "latents") == ["a.npy", "b.npy", "more/c.npy", "more/d.npy"]
    image = read_stored(digits / "a.png").values
    net: Any = load_run(flow).net
    with torch.no_grad():
        expected = net.encode(torch.from_numpy(image.copy())[None, None])[0]
    assert np.allclose(np.load(tmp_path / "latents/a.npy"), expected, atol=1e-5)
    assert predict(flow, tmp_path / "images", f"input={tmp_path / 'latents'}", "mode=decode") == 4
    for name in names(digits):
        assert np.array_equal(read_stored(tmp_path / "images" / name).values, read_stored(digits / name).values)
    with pytest.raises(ValueError, match=r"(?s)latents like .*a\.png: expected a latent of shape \(1, 28, 28\) in f"):
        predict(flow, tmp_path / "more", f"input={digits / 'a.png'}", "mode=decode")


def test_samples_depend_on_the_seed_and_their_number_alone(flow: Path, tmp_path: Path) -> None:
    assert predict(flow, tmp_path / "two", "mode=sample", "num_samples=2") == 2
    assert predict(flow, tmp_path / "three", "mode=sample", "num_samples=3") == 3
    assert names(tmp_path / "three") == [f"sample-{index:04d}.png" for index in range(3)]
    pictures = [read_stored(tmp_path / "three" / name).values for name in names(tmp_path / "three")]
    assert np.array_equal(read_stored(tmp_path / "two/sample-0001.png").values, pictures[1])
    assert not np.array_equal(pictures[0], pictures[1])
    assert predict(flow, tmp_path / "seed", "mode=sample", "num_samples=1", "seed=1") == 1
    assert not np.array_equal(read_stored(tmp_path / "seed/sample-0000.png").values, pictures[0])
    assert predict(flow, tmp_path / "cold", "mode=sample", "num_samples=2", "temperature=0") == 2
    net: Any = load_run(flow).net
    with torch.no_grad():
        expected = net.decode(torch.zeros(1, 1, 28, 28))[0, 0].clamp(0, 255).floor().numpy()
    assert np.array_equal(read_stored(tmp_path / "cold/sample-0001.png").values, expected)
    assert json.loads((tmp_path / "cold/predictions.json").read_text())["temperature"] == 0


def test_interpolations_go_from_image_to_image(flow: Path, digits: Path, tmp_path: Path) -> None:
    assert predict(flow, tmp_path / "out", f"input={digits}", "mode=interpolate", "num_steps=3") == 2
    found = names(tmp_path / "out")
    assert found == [f"a-b-0{step}.png" for step in range(3)] + [f"more/c-d-0{step}.png" for step in range(3)]
    first, middle, last = (read_stored(tmp_path / "out" / name).values for name in found[:3])
    assert np.array_equal(first, read_stored(digits / "a.png").values)
    assert np.array_equal(last, read_stored(digits / "b.png").values)
    net: Any = load_run(flow).net
    with torch.no_grad():
        ends = [net.encode(torch.from_numpy(end.copy())[None, None]) for end in (first, last)]
        expected = net.decode((ends[0] + ends[1]) / 2)[0, 0].clamp(0, 255).floor().numpy()
    assert np.mean(middle != expected) < 0.01  # rounding may cross an integer
    curved = ["mode=interpolate", "num_steps=3", "path=spherical"]
    with pytest.raises(ValueError, match="got interpolations with path 'straight'; overwrite=true replaces them"):
        predict(flow, tmp_path / "out", f"input={digits}", *curved)
    assert predict(flow, tmp_path / "curved", f"input={digits}", *curved) == 2
    with torch.no_grad():
        expected = net.decode(spherical(*ends, 0.5))[0, 0].clamp(0, 255).floor().numpy()
    middle = read_stored(tmp_path / "curved/a-b-01.png").values
    assert np.mean(middle != expected) < 0.01
    (digits / "b.png").unlink()
    with pytest.raises(ValueError, match="expected an even number of images to interpolate between, got 3"):
        predict(flow, tmp_path / "odd", f"input={digits}", "mode=interpolate")


def test_log_likelihoods_are_a_table(flow: Path, digits: Path, tmp_path: Path) -> None:
    assert predict(flow, tmp_path / "out", f"input={digits}", "mode=log_likelihood") == 4
    for row in rows(tmp_path / "out/log_likelihood.csv"):
        total = float(row["log_likelihood_nats"])
        assert float(row["bits_per_dim"]) == pytest.approx(-total / (784 * np.log(2)), rel=1e-5)
        terms = sum(float(row[f"{name}_nats"]) for name in ("prior", "logdet", "dequantisation"))
        assert terms == pytest.approx(total, rel=1e-5)
    net: Any = load_run(flow).net
    image = torch.from_numpy(read_stored(digits / "a.png").values.copy())[None, None]
    torch.manual_seed(0)
    with torch.no_grad():
        assert float(rows(tmp_path / "out/log_likelihood.csv")[0]["log_likelihood_nats"]) == pytest.approx(
            net.log_likelihood(image).total.item(), rel=1e-5
        )


def test_a_flow_needs_a_mode(flow: Path, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected mode=sample, encode, decode, interpolate or log_likelihood"):
        predict(flow, tmp_path / "out", f"input={digits}")
    for arguments, message in (
        (["mode=encode"], "expected input=<image file or folder> for mode=encode, got none"),
        (["mode=sample", f"input={digits}"], "expected no input for mode=sample"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(flow, tmp_path / "out", *arguments)
