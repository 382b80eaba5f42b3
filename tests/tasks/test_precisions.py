"""Training in every precision of the trainer, and with a gradient scaler, against double precision on the CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import train
from benchmarks.peers import awake
from src.config.composition import compose_config
from src.invertible import POLICIES, set_backprop
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from tests.fakes import tiny_overrides
from tests.marks import gpu, on_devices, slow

# The largest relative error of the loss after the last of four steps. cuDNN's convolutions round to 11 bits in 32-true.
PRECISIONS = {
    "64-true": 1e-6,
    "32-true": 2e-3,
    "bf16-mixed": 0.02,
    "16-mixed": 0.02,
    "bf16-true": 0.05,
    "16-true": 0.02,
}
CASES = [
    *((precision, "reversible") for precision in PRECISIONS),
    *(("bf16-mixed", policy) for policy in POLICIES if policy != "reversible"),
]
# A CPU has no 16-mixed; `check_combinations` refuses it.
ON_CPU = [case for case in CASES if case[0] != "16-mixed"]

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.custom_:FutureWarning")


def final_loss(folder: Path, device: str, precision: str, backprop: str) -> float:
    accelerator = {"cpu": "cpu", "cuda": "gpu"}[device]
    options = [f"trainer.accelerator={accelerator}", f"trainer.precision={precision}", f"backprop={backprop}"]
    # At the rate of the experiment, 1.6e-2, Adam's first steps amplify what is rounded, under every policy.
    options.append("task.optimizer.lr=1e-3")
    return train.train(compose_config(tiny_overrides(folder, *options, "test=false")))["metrics"]["train/loss"]


@pytest.fixture(scope="module")
def loss_in_double_precision(tmp_path_factory: pytest.TempPathFactory) -> float:
    return final_loss(tmp_path_factory.mktemp("double"), "cpu", "64-true", "stored")


@pytest.mark.parametrize(
    ("precision", "policy", "device"),
    [*(slow(*case, "cpu") for case in ON_CPU), *(gpu(*case, "cuda") for case in CASES)],
)
def test_a_training_has_the_losses_of_double_precision(
    precision: str, policy: str, device: str, loss_in_double_precision: float, tmp_path: Path
) -> None:
    found = final_loss(tmp_path, device, precision, policy)
    assert found == pytest.approx(loss_in_double_precision, rel=PRECISIONS[precision])


def network(policy: str) -> nn.Module:
    torch.manual_seed(0)
    net = awake(Lifted(1, 1, IUNet((4, 8), 2, 2, mixing={"init": "random"})))
    set_backprop(net, policy)
    return net


def gradients(net: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().flatten().cpu() for p in net.parameters() if p.grad is not None])


@pytest.mark.parametrize(("policy", "device"), on_devices(POLICIES, fast=("reversible",)))
def test_scaled_gradients_in_half_precision(policy: str, device: str) -> None:
    """They are those of double precision, and a step whose gradients overflow is skipped."""
    net, x = network(policy), 1e-3 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    exact = copy.deepcopy(net).double()
    exact(x.double()).square().mean().backward()
    net, x = net.to(device), x.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    for scale in (2.0**12, 2.0**60):
        scaler = torch.amp.GradScaler(device, init_scale=scale)
        before = copy.deepcopy(net.state_dict())
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16):
            loss = net(x).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if scale < 2.0**20:
            assert (gradients(net) - gradients(exact)).norm() < 0.02 * gradients(exact).norm()
        scaler.step(optimizer)
        scaler.update()
        stays = all(torch.equal(net.state_dict()[name], before[name]) for name in before)
        assert stays == (scaler.get_scale() < scale) == (scale > 2.0**20)
