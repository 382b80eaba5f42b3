"""load_run: a trained network in three lines, equal to what the run itself computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

import predict
import train
from src.config.composition import compose_config
from src.config.trusted import TRUST_VARIABLE
from src.datamodules.image_folder import ImageFolderDataModule
from src.datamodules.image_folder.demo import ImageFolderDemo
from src.datamodules.nnunet import NnunetDataModule
from src.datamodules.nnunet.demo import NnunetDemo
from src.datamodules.pairs import PairsDataModule
from src.invertible import set_backprop
from src.runs import LoadedRun, load_run
from src.runs.checkpoints import read_checkpoint
from src.runs.folder import RunFolder
from src.tasks.base import Task
from src.utils.errors import ConfigError
from src.utils.nifti import read_volume
from src.utils.reading import FileError
from tests.brats_files import write_case
from tests.fakes import BoxVolumes, tiny_overrides
from tests.pair_files import AFFINE
from tests.untrained import untrained


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train.train(compose_config(tiny_overrides(folder)))
    return folder


@pytest.fixture(scope="module")
def pairs_run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    small = ["network.blowup=4", "network.num_levels=2", "network.num_couplings=1", "datamodule.size=16"]
    folder = tmp_path_factory.mktemp("pairs") / "run"
    return load_run(untrained(folder, "experiment=restoration", "task.overlap=0.5", *small))


FLOW = ["experiment=iconvnet_table2", "datamodule=mnist", "model=glow", "network.glow.num_steps=1"]


@pytest.fixture(scope="module")
def flow_run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return load_run(untrained(tmp_path_factory.mktemp("flow") / "run", *FLOW, "network.glow.hidden_channels=4"))


def test_a_volume_gives_the_output_of_the_task_with_the_best_weights(finished: Path) -> None:
    state = torch.random.get_rng_state()
    run = load_run(finished)
    assert torch.equal(torch.random.get_rng_state(), state)
    content = read_checkpoint(RunFolder(finished).checkpoint("best"))
    config = compose_config(tiny_overrides(finished))
    task: Task = instantiate(config.task, _partial_=True)(net=instantiate(config.model))
    task.load_state_dict(content["state_dict"])
    batch = {k: v[None] for k, v in BoxVolumes(16, 1, seed=3)[0].items()}
    with torch.no_grad():
        expected = task.eval().judge(batch, "test")[1]["output"][0]
    volume = batch["input"][0].numpy()
    restored = run(volume)
    assert isinstance(restored, np.ndarray) and np.array_equal(restored, expected.numpy())
    assert np.array_equal(run(volume[0]), restored)  # one channel needs no axis
    assert not run.net.training and run.config.experiment == "ct_postproc"
    assert "Reconstruction with Lifted" in repr(run)


def test_a_checkpoint_can_be_named(finished: Path) -> None:
    last = RunFolder(finished).checkpoint()
    expected = read_checkpoint(last)["state_dict"]
    for run in (load_run(finished, "last"), load_run(last)):
        assert run.checkpoint == last
        assert all(torch.equal(value, expected[name]) for name, value in run.task.state_dict().items())


def test_gradients_with_respect_to_the_input_are_those_of_plain_autograd(finished: Path) -> None:
    run = load_run(finished)
    x = run.preprocess(np.random.default_rng(0).random((16, 16, 16), np.float32)).requires_grad_()
    (gradient,) = torch.autograd.grad(run.net(x).square().sum(), x)
    stored = load_run(finished)
    set_backprop(stored.net, "stored")
    (expected,) = torch.autograd.grad(stored.net(x).square().sum(), x)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-5)
    image = x.detach()[0].requires_grad_()
    (through_call,) = torch.autograd.grad(run(image).square().sum(), image)
    assert torch.allclose(through_call[None], expected, rtol=1e-4, atol=1e-5)


def test_the_body_of_a_lifted_network_is_inverted_and_the_network_says_that_it_cannot(pairs_run: LoadedRun) -> None:
    net: Any = pairs_run.net
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        lifted = net.lift(x)
        assert torch.allclose(net.body.inverse(net.body(lifted)), lifted, atol=1e-4)
    with pytest.raises(NotImplementedError, match=r"keeps 1 of 4 channels.*net\.body\.inverse\(net\.body\(z\)\)"):
        net.inverse(net(x))


def test_an_image_is_scaled_as_the_data_are_and_restored_in_windows_in_its_own_values(pairs_run: LoadedRun) -> None:
    rng = np.random.default_rng(0)
    volume = (500 + 200 * rng.random((20, 17, 16))).astype(np.float32)
    low, high = np.percentile(volume, (0.5, 99.5))
    x = pairs_run.preprocess(volume)
    assert np.allclose(x[0, 0].numpy(), (volume - low) / (high - low), atol=1e-5)
    restored = pairs_run(volume)
    with torch.no_grad():
        expected = pairs_run.task.infer(x)[0].numpy()
    assert np.allclose(restored, expected * (high - low) + low, rtol=1e-5)
    assert restored.shape == (1, 20, 17, 16) and isinstance(pairs_run.datamodule, PairsDataModule)
    # It is no file's array: a view with its axes reversed, and integers, give the same.
    assert np.array_equal(pairs_run(np.ascontiguousarray(volume.T).T), restored)
    assert pairs_run(nib.Nifti1Image(volume.astype(np.int16), AFFINE).get_fdata()).shape == restored.shape


def test_a_flow_gives_latents_reconstructions_samples_and_probabilities(flow_run: LoadedRun) -> None:
    net: Any = flow_run.net
    image = np.random.default_rng(0).integers(256, size=(1, 28, 28), dtype=np.uint8)
    latent = flow_run(image)
    with torch.no_grad():
        x = flow_run.preprocess(image)
        assert torch.equal(x[0], torch.from_numpy(image).float())
        assert np.array_equal(latent, net.encode(x)[0].numpy())
        assert torch.allclose(net.decode(net.encode(x)), x + 0.5, atol=1e-2)
        assert net.sample(2).shape == (2, 1, 28, 28) and net.log_likelihood(x).total.shape == (1,)


def test_a_classifier_gives_probabilities(tmp_path: Path) -> None:
    run = load_run(untrained(tmp_path / "run", "experiment=irevnet_lab"))
    image = np.random.default_rng(0).integers(256, size=(28, 28), dtype=np.uint8)
    probabilities = run(image)
    with torch.no_grad():
        logits = run.net(torch.from_numpy(image).float()[None, None] / 255)
    with pytest.raises(ValueError, match="expected grey values from 0 to 255, got fractions up to 1; multiply them"):
        run(image / 255)
    assert probabilities.shape == (10,) and np.allclose(probabilities, logits.softmax(1)[0].numpy(), atol=1e-6)


def test_weights_in_double_precision_stay_so(tmp_path: Path) -> None:
    small = ["network.blowup=4", "network.num_levels=2", "network.num_couplings=1", "trainer.precision=64-true"]
    folder = untrained(tmp_path / "run", "experiment=restoration", "datamodule.size=16", *small)
    run = load_run(folder)
    assert next(run.net.parameters()).dtype == torch.float64
    assert run(np.random.default_rng(0).random((16, 16, 16))).dtype == np.float64


def test_a_run_that_was_trained_on_a_gpu_loads_on_a_cpu(tmp_path: Path) -> None:
    run = load_run(untrained(tmp_path / "run", "trainer=gpu", "trainer.devices=7"))
    assert next(run.net.parameters()).device.type == "cpu"


def test_classes_of_others_need_trust(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUST_VARIABLE)
    with pytest.raises(ConfigError, match=r"TinyVolumes.*trust=\["):
        load_run(finished)
    assert load_run(finished, trust=["tests"]).datamodule.sample_shape == (1, 16, 16, 16)


def test_wrong_images_and_files_are_named(pairs_run: LoadedRun, tmp_path: Path) -> None:
    for shape in ((2, 16, 16, 16), (16, 16), (0, 16, 16), (1, 1, 16, 16, 16)):
        with pytest.raises(ValueError, match="expected an image of 1 channels and 3 spatial axes"):
            pairs_run(np.zeros(shape, np.float32))
    image = np.zeros((16, 16, 16), np.float32)
    image[0, 0] = np.nan
    for values in (image, torch.from_numpy(image)):
        with pytest.raises(ValueError, match="expected finite values, got 16 infinite or NaN values"):
            pairs_run(values)
    for other in (image.astype(np.complex64), "scan.nii.gz"):
        with pytest.raises(ValueError, match=r"expected an array of real numbers, got (complex64|<U11); predict"):
            pairs_run(other)  # type: ignore[type-var]
    assert isinstance(pairs_run(np.arange(4096.0).reshape(16, 16, 16).tolist()), np.ndarray)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="expected values that differ"):
        pairs_run(np.zeros((16, 16, 16), np.float32))
    with pytest.raises(ValueError, match=r"expected a checkpoint or a run folder with checkpoints/best\.ckpt"):
        load_run(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"text")
    with pytest.raises(ValueError, match="expected device as a device of this machine, got 'gpu'"):
        load_run(tmp_path / "x.ckpt", device="gpu")
    with pytest.raises(FileError, match="expected a readable checkpoint"):
        load_run(tmp_path / "x.ckpt")


def test_a_scan_gives_the_label_map_that_predict_writes(tmp_path: Path) -> None:
    folder, scan, _ = write_case(tmp_path / "scans", labelled=False)
    small = ["network.blowup=8", "network.num_levels=2", "network.num_couplings=1", "datamodule.size=[8,8,8]"]
    data = [f"datamodule.cache_dir={tmp_path / 'cache'}", "datamodule.preprocessing_workers=0"]
    checkpoint = untrained(tmp_path / "run", "experiment=brats", "datamodule=brats", *small, *data)
    arguments = [f"ckpt={checkpoint}", f"input={tmp_path / 'scans'}", f"output={tmp_path / 'out'}"]
    assert predict.predict(*predict.load(arguments)) == 1
    written = read_volume(tmp_path / "out" / f"{folder.name}.nii.gz").voxels
    run = load_run(checkpoint)
    labels = run(scan)
    assert len(np.unique(written)) > 1 and np.mean(labels != written) < 1e-3  # rounding may move a voxel
    image = torch.from_numpy(scan).float().requires_grad_()
    (gradient,) = torch.autograd.grad(run.task.logits(run.preprocess(image)).square().sum(), image)  # type: ignore[operator]
    assert gradient.abs().sum() > 0 and (gradient[:, (scan == 0).all(axis=0)] == 0).all()
    with pytest.raises(ValueError, match="expected a brain, got zeros only"):
        run(0 * scan)


def test_images_of_folders_are_standardised_with_the_numbers_of_the_training(tmp_path: Path) -> None:
    ImageFolderDemo(num_per_class=10, side=12).write(tmp_path / "set")
    options: dict[str, Any] = {"size": 12, "num_classes": 3, "values": "standardised"}
    trained = ImageFolderDataModule(str(tmp_path / "set"), **options)
    trained.setup("fit")
    elsewhere = ImageFolderDataModule("/nowhere", **options)
    with pytest.raises(ValueError, match=r"expected datamodule\.mean and datamodule\.std, or a checkpoint with those"):
        elsewhere.convert(torch.zeros(3, 12, 12))
    elsewhere.load_state_dict(trained.state_dict())
    sample = trained.sets["train"]
    image = sample.images[0].float()  # type: ignore[attr-defined]
    assert torch.equal(elsewhere.convert(image).values, sample[0]["image"])
    assert elsewhere.class_names == trained.class_names


def test_scans_whose_preprocessing_needs_their_files_are_refused() -> None:
    datamodule = NnunetDataModule(demo=NnunetDemo())
    with pytest.raises(
        ValueError, match=r"expected files of nnU-Net's format.*input=<folder of cases>.*run\.task\.infer"
    ):
        datamodule.convert(torch.zeros(2, 8, 8, 8))
