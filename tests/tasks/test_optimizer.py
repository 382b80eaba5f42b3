"""How a task's optimizer updates the weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.models.convolution import Conv3d
from src.tasks.reconstruction import Reconstruction
from src.tasks.schedules import constant

Make = Callable[..., torch.optim.Optimizer]
ADAM, SGD = partial(torch.optim.AdamW, lr=1e-2), partial(torch.optim.SGD, lr=1e-2, momentum=0.9)


def trained(optimizer: Make, **settings: Any) -> tuple[dict[str, Tensor], bool | None]:
    """Weights after some steps, and whether the update was a fused one."""
    torch.manual_seed(0)
    net = nn.Sequential(Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), Conv3d(4, 1, 3, padding=1))
    items = [
        {"input": torch.rand(1, 12, 12, 12), "target": torch.rand(1, 12, 12, 12), "index": torch.tensor(i)}
        for i in range(6)
    ]
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=0.5,
        **settings,
    )
    trainer.fit(Reconstruction(net, optimizer), DataLoader(items, batch_size=2))  # type: ignore[arg-type]
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    return weights, trainer.optimizers[0].param_groups[0]["fused"]


@pytest.mark.parametrize("optimizer", [ADAM, SGD])
def test_the_fused_update_is_the_plain_one(optimizer: Make) -> None:
    plain, fused = trained(partial(optimizer, fused=False))
    assert fused is False, "what the configuration says"
    weights, fused = trained(optimizer)
    assert fused is True
    for name, weight in weights.items():
        torch.testing.assert_close(weight, plain[name], rtol=1e-5, atol=1e-6)


def test_another_choice_of_the_configuration_stays() -> None:
    assert not trained(partial(ADAM, foreach=True))[1]


def test_mixed_precision_clips_gradients_all_the_same() -> None:
    weights, fused = trained(ADAM, precision="bf16-mixed")
    assert fused is True
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_optimizers_without_a_fused_update_stay_as_they_are() -> None:
    torch.manual_seed(0)
    task = Reconstruction(Conv3d(1, 1, 1), partial(torch.optim.RMSprop, lr=1e-2))
    assert "fused" not in task.configure_optimizers().param_groups[0]


class StopsAtOnce(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize("scheduler", [constant, None])
def test_a_run_that_only_a_callback_ends_has_a_rate(scheduler: Callable[..., Any] | None) -> None:
    torch.manual_seed(0)
    item = {"input": torch.rand(1, 12, 12), "target": torch.rand(1, 12, 12), "index": torch.tensor(0)}
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=-1, callbacks=StopsAtOnce(), accelerator="cpu", **options)  # type: ignore[arg-type]
    task = Reconstruction(nn.Conv2d(1, 1, 1), SGD, scheduler)
    trainer.fit(task, DataLoader([item]))  # type: ignore[arg-type]
    assert trainer.global_step == 1 and trainer.optimizers[0].param_groups[0]["lr"] == 1e-2
