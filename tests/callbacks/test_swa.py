"""The mean of the weights of the last epochs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import train
from src.callbacks.swa import SWA
from src.callbacks.weight_average import validated_weights
from src.config.composition import compose_config
from tests.callbacks.test_ema import Weights, checkpoint
from tests.fakes import tiny_overrides
from tests.resuming import resume, stop_at

# Four epochs of two steps, of which the last two are averaged.
RUN = ["callbacks=swa", "callbacks.swa.start_fraction=0.5", "trainer.max_epochs=4", "task/scheduler=none"]
RECORDER = "+callbacks.weights={_target_:tests.callbacks.test_ema.Weights}"


def overrides(folder: Path, *more: str) -> list[str]:
    return tiny_overrides(folder, *RUN, RECORDER, *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    Weights.states = []
    train.train(compose_config(overrides(folder)))
    return folder, Weights.states


def test_the_checkpoint_has_the_mean_of_the_last_epochs_ends(finished: Any) -> None:
    folder, states = finished
    saved = checkpoint(folder)
    assert len(states) == 8
    for name, value in saved["state_dict"].items():
        torch.testing.assert_close(value, (states[5][name] + states[7][name]) / 2, msg=name)
    assert all(torch.equal(value, states[7][name]) for name, value in saved["current_model_state"].items())


@pytest.mark.slow
def test_before_its_start_the_weights_themselves_are_saved_and_the_run_resumes(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        train.train(compose_config(overrides(tmp_path, stop_at(3, signal.SIGTERM))))
    saved = checkpoint(tmp_path)
    assert saved["global_step"] == 3
    assert all(torch.equal(value, finished[1][2][name]) for name, value in saved["state_dict"].items())
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    whole, halves = checkpoint(finished[0]), checkpoint(tmp_path)
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items()), part


class Line(pl.LightningModule):
    """One weight, which each step lowers by one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1.0)


class Stop(pl.Callback):
    """Ends the training early, as early stopping and a time budget do."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


def trained(batches: int, *others: pl.Callback, ckpt_path: Path | None = None, **settings: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        callbacks=[SWA(0.75), *others],
        **{"max_epochs": 100, **settings},
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
        accelerator="cpu",
    )
    trainer.fit(Line(), DataLoader(range(batches)), ckpt_path=ckpt_path)  # type: ignore[arg-type]
    return trainer


def weight_after(batches: int, *others: pl.Callback, **settings: Any) -> float:
    return -trained(batches, *others, **settings).lightning_module.weight.item()  # type: ignore[union-attr, operator]


class Validated(pl.Callback):
    """Keeps the weight at the end of each epoch as a validation would see it."""

    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        with validated_weights(trainer, pl_module):
            self.weights.append(-pl_module.weight.item())  # type: ignore[operator]


def test_a_training_that_is_prolonged_averages_its_own_last_epochs(tmp_path: Path) -> None:
    trained(2, max_epochs=4).save_checkpoint(tmp_path / "4.ckpt")
    seen = Validated()
    assert weight_after(2, seen, ckpt_path=tmp_path / "4.ckpt", max_epochs=12) == (20 + 22 + 24) / 3
    assert seen.weights == [10, 12, 14, 16, 18, 20, 21, 22]


@pytest.mark.parametrize(
    ("settings", "averaged"),
    [
        ({"max_epochs": 1}, [2]),
        ({"max_epochs": 2}, [4]),
        ({"max_epochs": 3}, [6]),
        ({"max_epochs": 4}, [8]),
        ({"max_epochs": 8}, [14, 16]),
        ({"max_steps": 16}, [14, 16]),
        ({"max_steps": 15}, [14, 15]),
        ({"max_steps": 1}, [1]),
        ({"max_steps": 8, "accumulate_grad_batches": 2}, [7, 8]),
    ],
)
def test_the_last_epochs_of_the_planned_length_are_averaged(settings: dict[str, Any], averaged: list[int]) -> None:
    assert weight_after(2, **settings) == sum(averaged) / len(averaged)


def test_a_training_that_ends_before_the_average_begins_says_so() -> None:
    expected = "averaged nothing: the training ended with epoch 1, and averaging begins with epoch 76"
    with pytest.warns(UserWarning, match=expected):
        assert weight_after(2, Stop()) == 2


def test_a_training_without_a_length_is_refused(tmp_path: Path) -> None:
    more = ["callbacks=swa", "trainer.max_epochs=-1", "+trainer.max_steps=3"]
    with pytest.raises(ValueError, match=r"expected trainer\.max_epochs to be (set for callbacks\.swa|at least 0)"):
        train.train(compose_config(tiny_overrides(tmp_path, *more)))
