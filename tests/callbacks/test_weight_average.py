"""Averages of a flow: real numbers are averaged, orders and flags are copied, and constants stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.callbacks.ema import EMA
from src.callbacks.pictures.evaluation import EvaluationPictures
from src.callbacks.swa import SWA
from src.callbacks.weight_average import ValidatedAverage
from src.invertible import ActNorm, AffineCoupling, FixedLinear, Permutation, Sequential
from tests.invertible.table.samples import dense

CHANNELS = 64
CALLBACKS: dict[str, Callable[[], ValidatedAverage]] = {
    **{f"ema of decay {d}": lambda d=d: EMA(d) for d in (0.0, 0.8, 0.95, 0.9995, 0.9999)},  # type: ignore[misc]
    "swa": lambda: SWA(0.0),
}


class Flow(pl.LightningModule):
    """Keeps the weights after each step, one of which is an epoch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        fixed = FixedLinear(torch.linalg.qr(torch.randn(CHANNELS, CHANNELS)).Q)
        self.net = Sequential(ActNorm(CHANNELS), Permutation(CHANNELS, seed=1), fixed, AffineCoupling(CHANNELS, dense))
        self.weights: list[dict[str, Tensor]] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        y, logdet = self.net.forward_and_logdet(batch)
        return (y.square().flatten(1).sum(1) / 2 - logdet).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def on_train_batch_end(self, *unused: object) -> None:
        self.weights.append({name: value.clone() for name, value in self.net.state_dict().items()})

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.randn(8, CHANNELS), batch_size=8)  # type: ignore[arg-type]


def weighted(name: str, values: list[Tensor]) -> Tensor:
    """The average in double precision, from its definition."""
    if name == "swa":
        return torch.stack(values).double().mean(0)
    decay, average = float(name.split()[-1]), values[0].double()
    for value in values[1:]:
        average = decay * average + (1 - decay) * value.double()
    return average


def fit(flow: Flow, callbacks: list[pl.Callback]) -> None:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    pl.Trainer(max_epochs=5, accelerator="cpu", callbacks=callbacks, num_sanity_val_steps=0, **off).fit(flow)


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_average_of_a_flow_is_a_flow(name: str) -> None:
    flow = Flow()
    fixed = {key: value.clone() for key, value in flow.net.named_buffers()}
    fit(flow, [CALLBACKS[name]()])
    assert len(flow.weights) == 5
    for key, value in flow.net.state_dict().items():
        if key in fixed and key != "0.initialized":
            assert torch.equal(value, fixed[key]), key
        else:
            expected = weighted(name, [state[key] for state in flow.weights])
            torch.testing.assert_close(value.double(), expected.double(), rtol=1e-6, atol=1e-7, msg=key)
    net, x = flow.net.double().eval(), torch.randn(3, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(net.inverse(net(x)), x, rtol=0, atol=1e-9)


class Validated(Flow):
    """A flow with a validation, which keeps the weights that it sees, and whose training ends after three epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.validated: list[Tensor] = []

    def validation_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        self.validated.append(weights_of(self))
        return {"image": batch, "index": torch.arange(len(batch))}

    def val_dataloader(self) -> DataLoader:
        return self.train_dataloader()

    def on_validation_epoch_end(self) -> None:
        self.trainer.should_stop = len(self.validated) == 3


class Seeing(EvaluationPictures):
    """Keeps the weights with which it draws."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), count=1, every_n_epochs=4)
        self.seen: list[Tensor] = []

    def figures(self, trainer: pl.Trainer, task: Any, samples: Any) -> dict[str, Any]:
        self.seen.append(weights_of(task))
        return {}


def weights_of(flow: Flow) -> Tensor:
    return torch.nn.utils.parameters_to_vector(flow.net.parameters()).detach().clone()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["ema of decay 0.95", "swa"])
def test_the_last_pictures_show_the_weights_that_were_validated(name: str, first: bool, tmp_path: Path) -> None:
    flow, pictures, average = Validated(), Seeing(tmp_path), CALLBACKS[name]()
    fit(flow, [average, pictures] if first else [pictures, average])
    assert len(flow.validated) == 3 and len(pictures.seen) == 2
    assert torch.equal(pictures.seen[1], flow.validated[2]) and not torch.equal(*pictures.seen)
    assert torch.equal(weights_of(flow), flow.validated[2])
