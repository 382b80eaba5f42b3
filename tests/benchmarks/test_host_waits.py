"""A training step hardly ever makes the CPU wait for the GPU."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fake_values import DEVICE, FakeTensorMode, fake_values, make_fake
from benchmarks.host_waits import HostWaits
from src.invertible import Snapshot, invertible_roots, set_backprop
from src.invertible.layers.fourier import FourierConvolution
from src.models.density import DensityModel
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from src.tasks.segmentation_heads import region_masks
from tests.marks import slow
from tests.models.small_networks import NETWORKS

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.custom_:FutureWarning")
refuse_changes = Snapshot.refuse_changes


def waits_of_a_step(net: nn.Module, shape: tuple[int, ...]) -> HostWaits:
    """The waits of forward, backward, clipping of gradients and an update."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(net, mode)
    with fake_values(mode), patch.object(Snapshot, "refuse_changes", refuse_changes), HostWaits() as waits:
        optimizer = torch.optim.Adam(net.parameters())
        for _ in range(2):
            waits.counts.clear()
            optimizer.zero_grad()
            with torch.autocast(DEVICE.type, torch.bfloat16):
                value = loss_of(net, torch.zeros(shape, device=DEVICE))
            value.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    return waits


def loss_of(net: nn.Module, images: Tensor) -> Tensor:
    if isinstance(net, DensityModel):
        return -net.log_likelihood(images).total.mean()
    return net(images).float().square().mean()


def allowed_waits(net: nn.Module, policy: str) -> int:
    """A walk back waits once, to check that no parameter has changed since; a flow, to check its images."""
    checked_images = int(isinstance(net, DensityModel))
    if policy == "stored":
        return checked_images
    # A Fourier convolution that is inverted tells which frequency is singular.
    fourier = sum(isinstance(module, FourierConvolution) for module in net.modules())
    return checked_images + len(invertible_roots(net)) + fourier


# i-ResNets compare the weights of each layer with those of its last singular vector.
# An image network, a classifier and a flow.
FEW = ("iunet-2d", "irevnet", "glow")
NAMES = [name for name in NETWORKS if "iresnet" not in name]


@pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning")
@pytest.mark.parametrize("name", [name if name in FEW else slow(name) for name in NAMES])
def test_a_training_step_hardly_waits(name: str) -> None:
    policy = "stored" if name in ("unet-3d", "glow") else "reversible"
    build, shape = NETWORKS[name]
    net, first = build(), torch.zeros(2, *shape)
    loss_of(net, first)  # sets what a first batch sets
    set_backprop(net, policy)
    assert waits_of_a_step(net, (2, *shape)).counts.total() <= allowed_waits(net, policy)


def test_a_reversible_iunet_waits_once() -> None:
    net = Lifted(1, 1, IUNet((4, 8, 16), 2, 3))
    set_backprop(net, "reversible")
    assert waits_of_a_step(net, (1, 1, 8, 8, 8)).counts.total() == 1


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
