"""A training step hardly ever makes the CPU wait for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fake_values import DEVICE, FakeTensorMode, fake_values, make_fake
from benchmarks.host_waits import HostWaits
from src.invertible import Sequential, Snapshot, SneakyReLU, set_backprop
from src.invertible.layers.fourier import FourierConvolution
from src.models.glow import Glow
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from src.models.realnvp import RealNVP
from src.tasks.segmentation_heads import region_masks

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.custom_:FutureWarning")
refuse_changes = Snapshot.refuse_changes


def waits_of_a_step(net: nn.Module, shape: tuple[int, ...], loss: Callable[[nn.Module, Tensor], Tensor]) -> HostWaits:
    """The waits of forward, backward, clipping of gradients and an update."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(net, mode)
    with fake_values(mode), patch.object(Snapshot, "refuse_changes", refuse_changes), HostWaits() as waits:
        optimizer = torch.optim.Adam(net.parameters())
        for _ in range(2):
            waits.counts.clear()
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16):
                value = loss(net, torch.zeros(shape, device=DEVICE))
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    return waits


def squares(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).float().square().mean()


def likelihood(net: nn.Module, x: Tensor) -> Tensor:
    z, logdet = net.forward_and_logdet(x)  # type: ignore[operator]
    return z.square().sum() - logdet.sum()


def ready(net: nn.Module) -> nn.Module:
    """The network after its first batch, which sets the normalisations."""
    net(torch.randn(2, 3, 8, 8))
    return net


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[[nn.Module, Tensor], Tensor]]] = {
    "iunet": (lambda: Lifted(1, 1, IUNet((4, 8, 16), 2, 3)), (1, 1, 8, 8, 8), squares),
    "fourier": (
        lambda: Sequential(
            FourierConvolution(3, spatial_dims=2), SneakyReLU(0.1), FourierConvolution(3, spatial_dims=2)
        ),
        (2, 3, 8, 8),
        likelihood,
    ),
    "glow": (lambda: ready(Glow(3, 2, 2, 8)), (2, 3, 8, 8), likelihood),
    "realnvp": (lambda: RealNVP(3, hidden_channels=8, num_residual_blocks=1), (2, 3, 8, 8), likelihood),
}


@pytest.mark.parametrize("policy", ["stored", "reversible"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_waits_once_under_reversible(name: str, policy: str) -> None:
    build, shape, loss = NETWORKS[name]
    net = build()
    set_backprop(net, policy)
    waits = waits_of_a_step(net, shape, loss)
    # A Fourier convolution that is inverted tells which frequency is singular.
    inverted = sum(isinstance(module, FourierConvolution) for module in net.modules()) if policy == "reversible" else 0
    assert waits.counts.total() <= (1 if policy == "reversible" else 0) + inverted, waits.counts


def test_what_waits_is_counted() -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_values(mode), HostWaits() as waits:
        x = torch.ones(3, device=DEVICE)
        bool(x[0] > 0)
        x.cpu()
        torch.tensor([1.0]).to(DEVICE)
        torch.tensor([1.0]).to(DEVICE, non_blocking=True)
        torch.linalg.matrix_exp(x.diag())
        assert torch.ones(2).sum().item() == 1.0  # on the CPU
        x.new_full((), 2.0).mul_(x.sum())
    assert waits.counts.total() == 4


def test_masks_of_regions_need_nothing_from_the_host() -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_values(mode), HostWaits() as waits:
        masks = region_masks(torch.zeros(1, 4, 4, dtype=torch.long, device=DEVICE), {"a": [1, 2], "b": [4]})
    assert masks.shape == (1, 2, 4, 4)
    assert not waits.counts.total()
