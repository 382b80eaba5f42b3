"""Averaged weights in a training: what is kept, tested and resumed."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import eval as evaluation
import train
from src.callbacks.ema import EMA
from src.config.composition import compose_config
from src.invertible import SpectralNormalised
from src.runs.folder import RunFolder
from tests.fakes import tiny_overrides
from tests.image_files import write_mnist
from tests.resuming import resume, stop_at
from tests.test_image_networks import FLOWS, one_step

DECAY = 0.8
State = dict[str, torch.Tensor]


class Weights(pl.Callback):
    """Keeps the weights after each step of every training of this process."""

    states: list[State]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any) -> None:
        Weights.states.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def overrides(folder: Path, *more: str) -> list[str]:
    recorder = "+callbacks.weights={_target_:tests.callbacks.test_ema.Weights}"
    return tiny_overrides(folder, "callbacks=ema", f"callbacks.ema.decay={DECAY}", recorder, *more)


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(RunFolder(folder).checkpoint(), weights_only=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[State], dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    Weights.states = []
    summary = train.train(compose_config(overrides(folder)))
    yield folder, Weights.states, summary["metrics"]


def test_the_checkpoint_has_the_average_and_beside_it_the_weights(finished: Any) -> None:
    folder, states, _ = finished
    average = states[0]
    for state in states[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * state[name] for name in state}
    saved = checkpoint(folder)
    assert len(states) == 4 and saved["state_dict"].keys() == average.keys()
    for name, value in saved["state_dict"].items():
        torch.testing.assert_close(value, average[name], msg=name)
    assert all(torch.equal(value, states[-1][name]) for name, value in saved["current_model_state"].items())


def test_the_test_at_the_end_is_of_the_average_as_eval_has_it(finished: Any, tmp_path: Path) -> None:
    folder, _, metrics = finished
    config, path = evaluation.load([f"ckpt={folder}", f"run_dir={tmp_path}"])
    of_eval = evaluation.evaluate(config, path)["metrics"]
    assert of_eval == {name: value for name, value in metrics.items() if name.startswith("test/")}


@pytest.mark.slow
def test_a_resumed_run_ends_as_the_uninterrupted_one(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        train.train(compose_config(overrides(tmp_path, stop_at(2, signal.SIGTERM))))
    assert checkpoint(tmp_path)["global_step"] == 2
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    whole, halves = checkpoint(finished[0]), checkpoint(tmp_path)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items()), part


def test_an_averaged_training_does_not_go_on_from_its_average(
    finished: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        resume(monkeypatch, f"resume={finished[0]}", "callbacks.ema=null")
    assert "expected an average of the weights (callbacks=ema or callbacks=swa)" in capsys.readouterr().err


def operator_norm(layer: SpectralNormalised, shape: tuple[int, ...]) -> float:
    """Of a layer as a network uses it, by one that has never seen other weights."""
    used = copy.deepcopy(layer.layer).double()
    with torch.no_grad():
        used.weight.copy_(layer.normalised_weight(shape))
    return SpectralNormalised(used, 1.0).norm(shape).item()


class Norms(pl.Callback):
    """Notes the largest operator norm, relative to its bound, of the network that was validated."""

    largest: float

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any) -> None:
        layers = [layer for layer in pl_module.modules() if isinstance(layer, SpectralNormalised)]
        Norms.largest = max(
            operator_norm(layer, shape) / layer.coefficient for layer in layers for shape in layer.get_extra_state()
        )


def test_the_average_of_bounded_weights_is_bounded_where_it_is_validated(tmp_path: Path) -> None:
    """Averages are written through ``.data``, which no version counter shows."""
    write_mnist(tmp_path)
    of_average = ["callbacks=ema", f"callbacks.ema.decay={DECAY}", "task.optimizer.lr=0.1", "task.scheduler=null"]
    recorder = "+callbacks.norms={_target_:tests.callbacks.test_ema.Norms}"
    more = [*FLOWS["iresnet_flow"], *of_average, recorder, "test=false"]
    train.train(compose_config(one_step("iconvnet_table2", "iresnet_flow", "mnist", tmp_path, tmp_path / "run", *more)))
    assert 0 < Norms.largest <= 1 + 1e-3


@pytest.mark.parametrize("settings", [{"decay": 1.0}, {"decay": -0.1}, {"update_every_n_steps": 0}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected decay in \[0, 1\)"):
        EMA(**settings)
