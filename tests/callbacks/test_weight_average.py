"""Averages of a flow: real numbers are averaged, orders and flags are copied, and constants stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.callbacks.ema import EMA
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


@pytest.mark.parametrize("name", CALLBACKS)
def test_the_average_of_a_flow_is_a_flow(name: str) -> None:
    flow = Flow()
    fixed = {key: value.clone() for key, value in flow.net.named_buffers()}
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        callbacks=[CALLBACKS[name]()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(flow)
    assert len(flow.weights) == 5
    for key, value in flow.net.state_dict().items():
        if key in fixed and key != "0.initialized":
            assert torch.equal(value, fixed[key]), key
        else:
            expected = weighted(name, [state[key] for state in flow.weights])
            torch.testing.assert_close(value.double(), expected.double(), rtol=1e-6, atol=1e-7, msg=key)
    net, x = flow.net.double().eval(), torch.randn(3, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(net.inverse(net(x)), x, rtol=0, atol=1e-9)
