"""The search for a learning rate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import train
from src.callbacks.lr_finder import SETTLED, LRFinder, _mean_losses, steepest
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from tests.fakes import tiny_overrides


def test_the_rate_is_that_of_the_steepest_descent_over_its_logarithm() -> None:
    rates = np.logspace(-6, 0, 121)
    losses = 1 / (1 + (rates / 1e-3) ** 2)  # steepest in log r at r = 1e-3
    losses[-10:] = np.nan
    assert steepest(list(rates), list(losses)) == pytest.approx(1e-3)


@pytest.mark.parametrize("count", [5, SETTLED + 1, 60])
def test_a_loss_that_falls_nowhere_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=r"expected a loss that falls at some rate.*got none; more steps \(callbacks"):
        steepest(list(np.logspace(-6, 0, count)), list(np.linspace(1, 2, count)))


def test_each_process_sees_the_mean_loss_and_its_own_gradient() -> None:
    class Square(pl.LightningModule):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return batch.square().sum()

    module, batch = Square(), torch.tensor([3.0], requires_grad=True)
    others = SimpleNamespace(reduce=lambda own, reduce_op: (own + 1) / 2)  # one other process, with a loss of 1
    with _mean_losses(SimpleNamespace(strategy=others), module):  # type: ignore[arg-type]
        loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.item() == 5 and batch.grad is not None and batch.grad.item() == 6
    assert module.training_step(batch, 0).item() == 9


class Validations(pl.Callback):
    """Keeps the steps after which there was a validation."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(trainer.global_step)


class Slope(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.weight.square()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"val_check_interval": 6, "check_val_every_n_epoch": None}, [6, 12]),
        ({"val_check_interval": 2}, [2, 4, 6, 8, 10, 12]),
        ({"check_val_every_n_epoch": 2}, [8]),
    ],
)
def test_the_search_leaves_the_validations_as_they_are(
    settings: dict[str, Any], validated: list[int], tmp_path: Path
) -> None:
    validations = Validations()
    trainer = pl.Trainer(
        callbacks=[LRFinder(str(tmp_path), num_steps=20), validations],
        max_epochs=3,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
        accelerator="cpu",
        **settings,
    )
    trainer.fit(Slope(), DataLoader(range(4)), DataLoader(range(1)))  # type: ignore[arg-type]
    assert validations.steps == validated


@pytest.mark.slow
def test_the_run_after_the_search_is_the_run_with_that_rate(tmp_path: Path) -> None:
    more = ["callbacks=lr_finder", "callbacks.lr_finder.num_steps=30"]
    summary = train.train(compose_config(tiny_overrides(tmp_path / "found", *more)))
    rate = summary["learning_rate"]
    assert 1e-6 < rate < 1 and (tmp_path / "found/images/learning_rate.png").is_file()
    plain = train.train(compose_config(tiny_overrides(tmp_path / "given", f"task.optimizer.lr={rate!r}")))
    assert summary["metrics"]["test/psnr"] == plain["metrics"]["test/psnr"]
    found, given = (torch.load(RunFolder(tmp_path / f).checkpoint(), weights_only=True) for f in ("found", "given"))
    assert all(torch.equal(value, given["state_dict"][name]) for name, value in found["state_dict"].items())
    assert found["global_step"] == given["global_step"] and found["lr_schedulers"] == given["lr_schedulers"]
