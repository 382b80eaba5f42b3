"""The U-Net with reversible levels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from src.invertible import POLICIES, invertible_roots, set_backprop
from src.models.partially_reversible_unet import PartiallyReversibleUNet
from tests.invertible.engine.test_backprop import saved_bytes
from tests.models.policies import assert_policy_is_exact

# Of the network in the authors' code (experiments/noNewReversible.py); both give the same output for the same weights.
AUTHORS_PARAMETERS = 12_365_283


def network(spatial_dims: int = 2, **options: Any) -> PartiallyReversibleUNet:
    torch.manual_seed(0)
    return PartiallyReversibleUNet(2, 3, [4, 8, 12], spatial_dims, **options)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_are_exact_under_every_policy(spatial_dims: int, policy: str) -> None:
    net = network(spatial_dims, num_encoder_blocks=2).double()
    x = torch.randn(2, 2, *[8] * spatial_dims, dtype=torch.float64)
    assert net(x).shape == (2, 3, *[8] * spatial_dims)
    assert_policy_is_exact(net, x, policy)


def test_every_level_is_one_reversible_sequence_per_side() -> None:
    names = list(invertible_roots(network()))
    assert names == [f"encoders.{i}" for i in range(3)] + [f"decoders.{i}" for i in range(3)]


def test_memory_does_not_grow_with_the_couplings() -> None:
    def kept(count: int) -> int:
        net = network(num_encoder_blocks=count, num_decoder_blocks=count)
        set_backprop(net, "reversible")
        return saved_bytes(net, torch.randn(1, 2, 16, 16))

    assert kept(1) == kept(5)


def test_other_sizes_are_padded_or_refused() -> None:
    x = torch.randn(1, 2, 10, 11)
    assert network(padding_mode="reflect")(x).shape == (1, 3, 10, 11)
    with pytest.raises(ValueError, match=r"divisible by \(4, 4\)"):
        network()(x)
    with pytest.raises(ValueError, match="expected 2 channels, got 1"):
        network()(x[:, :1])


def test_the_parameters_are_those_of_the_authors_network() -> None:
    channels = [60, 120, 240, 360, 480]
    with torch.device("meta"):
        net = PartiallyReversibleUNet(4, 3, channels)
    # F and G of a block, on half of the channels each: scale and offset, 3³ taps.
    blocks = sum(2 * (2 * (c // 2) + 27 * (c // 2) ** 2) for c in channels)
    joints = sum(fine * coarse * 2 + fine + coarse for fine, coarse in itertools.pairwise(channels))
    expected = 4 * 60 * 27 + 2 * blocks + joints + 60 * 3 + 3
    assert sum(p.numel() for p in net.parameters()) == expected == AUTHORS_PARAMETERS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [3, 4]}, r"even number of channels per level, got channels=\[3, 4\]"),
        ({"channels": []}, "even number of channels"),
        ({"num_encoder_blocks": 0}, "expected num_encoder_blocks >= 1, got 0"),
        ({"num_decoder_blocks": 0}, "expected num_decoder_blocks >= 1, got 0"),
        ({"spatial_dims": 4}, "spatial_dims"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartiallyReversibleUNet(1, 1, **{"channels": [4], **options})
