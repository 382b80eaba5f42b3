"""The U-Net with reversible levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.invertible import POLICIES, invertible_roots, set_backprop
from src.models.partially_reversible_unet import PartiallyReversibleUNet
from tests.invertible.test_backprop import saved_bytes
from tests.models.policies import assert_policy_is_exact


def network(spatial_dims: int = 2, **options: Any) -> PartiallyReversibleUNet:
    torch.manual_seed(0)
    return PartiallyReversibleUNet(2, 3, 4, 3, spatial_dims, **options)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_are_exact_under_every_policy(spatial_dims: int, policy: str) -> None:
    net = network(spatial_dims, num_couplings=2).double()
    x = torch.randn(2, 2, *[8] * spatial_dims, dtype=torch.float64)
    assert net(x).shape == (2, 3, *[8] * spatial_dims)
    assert_policy_is_exact(net, x, policy)


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_the_norms(norm: str) -> None:
    assert_policy_is_exact(network(norm=norm).double(), torch.randn(2, 2, 8, 8, dtype=torch.float64), "reversible")


def test_every_level_is_one_reversible_sequence_per_side() -> None:
    names = list(invertible_roots(network()))
    assert names == [f"encoders.{i}" for i in range(3)] + [f"decoders.{i}" for i in range(2)]


def test_memory_does_not_grow_with_the_couplings() -> None:
    def kept(count: int) -> int:
        net = network(num_couplings=count)
        set_backprop(net, "reversible")
        return saved_bytes(net, torch.randn(1, 2, 16, 16))

    assert kept(1) == kept(5)


def test_other_sizes_are_padded_or_refused() -> None:
    x = torch.randn(1, 2, 10, 11)
    assert network(padding_mode="reflect")(x).shape == (1, 3, 10, 11)
    with pytest.raises(ValueError, match=r"divisible by \(4, 4\)"):
        network()(x)
    with pytest.raises(ValueError, match="images with 2 channels, got 1"):
        network()(x[:, :1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 3, 2, 2), "even number of base_channels, got 3"),
        ((1, 1, 4, 0, 2), "num_levels >= 1"),
        ((1, 1, 4, 2, 4), "spatial_dims"),
    ],
)
def test_options_that_cannot_work_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartiallyReversibleUNet(*arguments)
