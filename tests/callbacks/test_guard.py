"""The guard against drift, on an affine flow that is trained into it."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.callbacks.reversibility_guard import METRIC, ReversibilityGuard
from src.config.composition import compose_config
from src.invertible import AdditiveCoupling, Inverse, InvertibleModule, Sequential, set_backprop
from src.invertible.engine.reversible import keeps_input
from src.invertible.inspection.reconstruction import LeafError
from src.invertible.layers.affine import AffineCoupling
from src.runs.csv_logger import CsvLogger
from src.runs.history import read_rows


def subnet(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, 8), nn.Tanh(), nn.Linear(8, dims_out))


class DriftingFlow(pl.LightningModule):
    """A flow of unbounded affine couplings whose loss makes them contract ever more: what they add drowns the rest."""

    def __init__(self, backprop: str = "reversible", method: str = "forward_and_logdet") -> None:
        super().__init__()
        torch.manual_seed(0)
        couplings = [AffineCoupling(4, subnet, flip=bool(i % 2), clamp_activation="none") for i in range(6)]
        flow = Sequential(AdditiveCoupling(4, subnet), *couplings)
        self.flow: InvertibleModule = Inverse(flow) if method == "inverse" else flow
        self.method = method
        set_backprop(self, backprop)

    def loss(self, x: Tensor) -> Tensor:
        if self.method == "inverse":
            return (self.flow.inverse(x) ** 2).mean()
        y, logdet = self.flow.forward_and_logdet(x)
        return logdet.mean() + (y**2).mean()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def fit(task: pl.LightningModule, guard: ReversibilityGuard, steps: int = 40, **settings: Any) -> pl.Trainer:
    generator = torch.Generator().manual_seed(0)
    data = DataLoader(torch.randn(steps * 4, 4, generator=generator), batch_size=4)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        max_steps=steps,
        callbacks=[guard],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"logger": False, **settings},
    )
    trainer.fit(task, data)
    return trainer


def gradient_error(task: DriftingFlow) -> float:
    """Relative error of the gradients under ``reversible``, against plain autograd."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    grads = []
    for policy in ("stored", "reversible"):
        set_backprop(task, policy)
        task.zero_grad()
        task.loss(x).backward()
        grads.append(torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None]).double())
    return float((grads[1] - grads[0]).norm() / grads[0].norm())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
def test_it_names_the_blocks_of_a_drifting_flow() -> None:
    task, guard = DriftingFlow(), ReversibilityGuard(threshold=1e-3, every_n_steps=5)
    with pytest.warns(UserWarning, match=r"block flow\.\d rebuilds its input with a relative error of") as caught:
        trainer = fit(task, guard)
    named = [str(w.message).split()[1].rstrip(":") for w in caught if str(w.message).startswith("block")]
    assert len(named) == len(set(named)), "once each"
    assert guard.switched == [] and not any(keeps_input(part) for part in task.flow)  # type: ignore[attr-defined]
    assert list(guard.errors) == [f"flow.{i}" for i in range(7)]
    assert trainer.callback_metrics["train/reconstruction_error"] == pytest.approx(max(guard.errors.values()))
    assert not gradient_error(task) < 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_switched_blocks_make_the_gradients_right_again() -> None:
    task, guard = DriftingFlow(), ReversibilityGuard(threshold=3e-4, every_n_steps=1, switch=True)
    fit(task, guard)
    assert 0 < len(guard.switched) < 7
    modules = dict(task.named_modules())
    assert {name for name, part in modules.items() if name.count(".") == 1 and keeps_input(part)} == set(guard.switched)  # type: ignore[arg-type]
    assert max(guard.errors.values()) < 1e-3
    assert gradient_error(task) < 1e-3
    assert task.flow.watcher is None, "the guard left nothing behind"

    resumed, again = DriftingFlow(), ReversibilityGuard(switch=True)
    again.load_state_dict(guard.state_dict())
    again.on_fit_start(None, resumed)  # type: ignore[arg-type]
    assert all(keeps_input(dict(resumed.named_modules())[name]) for name in guard.switched)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_watches_training_through_the_inverse() -> None:
    task, guard = DriftingFlow(method="inverse"), ReversibilityGuard(threshold=1e-12, switch=True)
    fit(task, guard, steps=2)
    assert set(guard.switched) <= {f"flow.module.{i}" for i in range(7)} and guard.switched
    assert gradient_error(task) < 1e-5


@pytest.mark.parametrize("rebuilt", [(math.nan, 1e-9), (1e-9, math.nan)])
@pytest.mark.filterwarnings("ignore:block")
def test_a_state_that_is_not_a_number_is_the_worst_of_a_shared_block(rebuilt: tuple[float, float]) -> None:
    task, guard = DriftingFlow(), ReversibilityGuard()
    for error in rebuilt:
        guard._judge("flow.0", LeafError(task.flow[0], error, error), task)  # type: ignore[index]
    assert math.isnan(guard.errors["flow.0"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_logs_the_steps_that_it_measures(accumulate: int, tmp_path: Path) -> None:
    path, guard, measured = tmp_path / "metrics.csv", ReversibilityGuard(every_n_steps=4), {}

    class Task(DriftingFlow):
        def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
            self.step = self.trainer.global_step

        def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
            if batch_idx % 4 == 0:
                measured[self.step] = max(guard.errors.values())

    settings: dict[str, Any] = {"log_every_n_steps": 1, "accumulate_grad_batches": accumulate}
    fit(Task(), guard, steps=10, logger=CsvLogger(str(path)), **settings)
    rows = {step: values[METRIC] for step, values in read_rows(path) if METRIC in values}
    assert rows == pytest.approx(measured) and len(rows) > 2


@pytest.mark.parametrize("backprop", ["stored", "checkpoint"])
def test_other_policies_need_no_guard(backprop: str) -> None:
    guard = ReversibilityGuard(threshold=1e-12)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="block .*")
        fit(DriftingFlow(backprop), guard, steps=2)
    assert guard.errors == {}


def test_after_an_exception_nobody_watches() -> None:
    class Failing(DriftingFlow):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            raise RuntimeError("on purpose")

    task = Failing()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(task, ReversibilityGuard())
    assert task.flow.watcher is None


@pytest.mark.parametrize("settings", [{"threshold": 0.0}, {"every_n_steps": 0}])
def test_settings_are_positive(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected positive threshold and every_n_steps"):
        ReversibilityGuard(**settings)


def test_the_configuration_adds_it_to_the_usual_callbacks() -> None:
    usual, guarded = compose_config([]).callbacks, compose_config(["callbacks=guard"]).callbacks
    assert set(guarded) == {*usual, "guard"}
    assert guarded.guard.switch is True
