"""Every network for images takes one step on every image set, from the command line, on tiny files in real formats."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.utils.errors import is_user_error, root_message
from tests.image_files import write_cifar10, write_mnist
from tests.marks import slow

ROOT = Path(train.__file__).parent
WRITE = {"mnist": write_mnist, "cifar10": write_cifar10}
CLASSIFIERS = {
    "lab_net": [],
    "lab_irevnet": [],
    "irevnet": ["network.irevnet.num_blocks=[1,1,1]"],
    "iresnet": ["network.iresnet.num_blocks=[1,1,1]", "network.iresnet.hidden_channels=[4,4,4]"],
    "convnet": ["network.convnet.width=4"],
    "iconvnet": [],
}
FLOWS = {
    "realnvp": ["network.realnvp.hidden_channels=4", "network.realnvp.num_residual_blocks=1"],
    "glow": ["network.glow.hidden_channels=4", "network.glow.num_steps=2"],
    "iresnet_flow": ["network.iresnet_flow.hidden_channels=4", "network.iresnet_flow.num_blocks=1"],
    "iconvnet_flow": [],
    "iconvnet_multiscale_flow": ["network.iconvnet_multiscale_flow.channels=4"],
    "iconvnet_glow_flow": [],
    "iunet_flow": ["network.iunet_flow.hidden_channels=4", "network.iunet_flow.num_couplings=1"],
}


def on_every_set(models: Iterable[str]) -> list[Any]:
    """Return each network with each image set; the fast tests use the sets in turn, the slow tests the other ones."""
    return [
        (pytest.param if (i + j) % 2 == 0 and not model.startswith(("iresnet", "iconvnet")) else slow)(model, data_set)
        for i, model in enumerate(models)
        for j, data_set in enumerate(WRITE)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for write in WRITE.values():
        write(folder)
    return folder


def one_step(experiment: str, model: str, data_set: str, folder: Path, run_dir: Path, *more: str) -> list[str]:
    return [
        f"experiment={experiment}",
        f"model={model}",
        f"datamodule={data_set}",
        f"datamodule.data_dir={folder}",
        "datamodule.verify_checksums=false",
        "datamodule.num_train=8",
        "datamodule.num_val=4",
        "datamodule.num_test=4",
        "datamodule.batch_size=8",
        "trainer.max_epochs=1",
        "trainer.check_val_every_n_epoch=1",
        "callbacks.images.num_images=2",
        "logger=csv",
        f"run_dir={run_dir}",
        *more,
    ]


def summary_of(overrides: Sequence[str]) -> dict:
    return train.train(compose_config(list(overrides)))


@pytest.mark.parametrize(("model", "data_set"), on_every_set(CLASSIFIERS))
def test_every_classifier_takes_a_step(model: str, data_set: str, folder: Path, tmp_path: Path) -> None:
    summary = summary_of(one_step("irevnet_lab", model, data_set, folder, tmp_path, *CLASSIFIERS[model]))
    assert summary["steps"] == 1
    assert 0 <= summary["metrics"]["test/accuracy"] <= 1
    if model not in ("lab_net", "convnet"):
        # The inverse of the i-ConvNet's activations amplifies rounding errors tenfold per layer.
        assert summary["metrics"]["test/reconstruction_error_max"] < (0.3 if model == "iconvnet" else 1e-4)
    assert (tmp_path / "images" / "confusion.png").is_file()


@pytest.mark.parametrize(("model", "data_set"), on_every_set(FLOWS))
def test_every_flow_takes_a_step(model: str, data_set: str, folder: Path, tmp_path: Path) -> None:
    summary = summary_of(one_step("iconvnet_table2", model, data_set, folder, tmp_path, *FLOWS[model]))
    metrics = summary["metrics"]
    assert summary["steps"] == 1
    parts = sum(metrics[f"test/{name}"] for name in ("prior", "logdet", "dequantisation"))
    assert metrics["test/bits_per_dim"] == pytest.approx(parts, abs=1e-5) and metrics["test/bits_per_dim"] > 0
    assert summary["invertibility_error"] < (0.1 if model.startswith("iconvnet") else 1e-3)
    assert (tmp_path / "images" / "test-samples.png").is_file()


@pytest.mark.parametrize(
    ("experiment", "model", "backprop"),
    [
        ("irevnet_lab", "irevnet", "checkpoint"),
        *(slow("irevnet_lab", "irevnet", backprop) for backprop in ("stored", "memcnn")),
        *(slow("iconvnet_table2", "glow", backprop) for backprop in ("stored", "checkpoint", "memcnn")),
    ],
)
def test_images_train_under_every_policy(
    experiment: str, model: str, backprop: str, folder: Path, tmp_path: Path
) -> None:
    if backprop == "memcnn":
        pytest.importorskip("memcnn")
    options = {**CLASSIFIERS, **FLOWS}[model]
    overrides = one_step(experiment, model, "mnist", folder, tmp_path, f"backprop={backprop}", "test=false", *options)
    assert summary_of(overrides)["steps"] == 1


@pytest.mark.parametrize(
    ("experiment", "model"), [("irevnet_lab", "lab_irevnet"), slow("iconvnet_table2", "iunet_flow")]
)
def test_images_train_in_bfloat16(experiment: str, model: str, folder: Path, tmp_path: Path) -> None:
    options = {**CLASSIFIERS, **FLOWS}[model]
    overrides = one_step(experiment, model, "mnist", folder, tmp_path, "trainer.precision=bf16-mixed", *options)
    assert summary_of(overrides)["steps"] == 1


@pytest.mark.slow
def test_variational_dequantisation_is_one_word(folder: Path, tmp_path: Path) -> None:
    options = ["network.dequantisation=variational", *FLOWS["glow"]]
    metrics = summary_of(one_step("iconvnet_table2", "glow", "mnist", folder, tmp_path, *options))["metrics"]
    assert abs(metrics["test/dequantisation"]) > 1e-6


@pytest.mark.slow
def test_a_resumed_flow_equals_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    def overrides(name: str, epochs: int) -> list[str]:
        more = [*FLOWS["glow"], "test=false", "datamodule.batch_size=4", "task.scheduler=null"]
        run_dir = tmp_path / name
        return one_step("iconvnet_table2", "glow", "mnist", folder, run_dir, *more, f"trainer.max_epochs={epochs}")

    summary_of(overrides("whole", 2))
    summary_of(overrides("halves", 1))
    result = subprocess.run(
        [sys.executable, "train.py", f"resume={tmp_path / 'halves'}", "trainer.max_epochs=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    first, second = (
        torch.load(RunFolder(tmp_path / name).checkpoint(), weights_only=True)["state_dict"]
        for name in ("whole", "halves")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "model"), [("irevnet_lab", "irevnet"), ("iconvnet_table2", "glow")])
def test_two_processes_classify_and_estimate(experiment: str, model: str, folder: Path, tmp_path: Path) -> None:
    options = {**CLASSIFIERS, **FLOWS}[model]
    overrides = one_step(experiment, model, "mnist", folder, tmp_path / "run", *options, "datamodule.num_test=5")
    distributed = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "datamodule.batch_size=4"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    result = subprocess.run(
        [sys.executable, "train.py", *overrides, *distributed],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert read_summary(RunFolder(tmp_path / "run").summary)["steps"] == 1
    # With five images on two processes, the sampler repeats one, but the table does not.
    assert len(RunFolder(tmp_path / "run").test_table.read_text().splitlines()) == 1 + 5


@pytest.mark.parametrize(
    ("experiment", "overrides", "message"),
    [
        ("irevnet_lab", ["model=glow"], "classifier|samples of shape"),
        ("iconvnet_table2", ["model=lab_net"], "expected a DensityModel"),
        ("iconvnet_table2", ["model=glow", "datamodule.values=unit"], "values=integers"),
        ("iconvnet_table2", ["model=glow", "network.glow.num_levels=3"], "divisible by 2\\^3 = 8"),
        ("irevnet_lab", ["model=irevnet", "network.irevnet.padded_channels=null"], "an even number of channels"),
        ("irevnet_lab", ["datamodule.num_val=100000"], "num_train"),
    ],
)
def test_impossible_configurations_are_refused_before_anything_is_written(
    experiment: str, overrides: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    usual = [o for o in one_step(experiment, "lab_net", "mnist", folder, tmp_path / "run") if "verify" not in o]
    with pytest.raises(Exception) as failed:
        summary_of([*usual, *overrides])
    assert is_user_error(failed.value)
    assert re.search(message, root_message(failed.value))
    assert not (tmp_path / "run").exists()


def test_the_figures_draw_themselves(tmp_path: Path) -> None:
    tiny = ["datamodule.num_train=4", "trainer.max_epochs=1"]
    summary_of(["experiment=iunet_figures", "logger=csv", f"run_dir={tmp_path}", *tiny])
    assert len(list((tmp_path / "images").glob("*.png"))) == 4
