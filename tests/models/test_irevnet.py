"""The i-RevNet: exact inverse, gradients, statistics, memory, and the authors' own network beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.invertible import POLICIES, set_backprop
from src.models.irevnet import IRevNet
from src.models.padding_channels import InjectivePadding
from tests.invertible.test_backprop import saved_bytes
from tests.models.policies import assert_policy_is_exact

OPTIONS: dict[str, dict[str, Any]] = {
    "injective": {"padded_channels": 8},
    "bijective, downsampled at once": {"initial_downsampling": 2},
    "bijective, first stride": {"initial_downsampling": 2, "strides": (2, 1)},
    "wide": {"padded_channels": 8, "bottleneck": 1},
    "group norm": {"padded_channels": 8, "norm": "group"},
    "no norm": {"padded_channels": 8, "norm": "none"},
    "1D": {"padded_channels": 4, "spatial_dims": 1},
    "3D": {"padded_channels": 4, "spatial_dims": 3},
}


def network(**options: Any) -> IRevNet:
    torch.manual_seed(0)
    return IRevNet(3, 5, **{"num_blocks": (2, 2), "strides": (1, 2), **options}).double()


def images(options: dict[str, Any]) -> torch.Tensor:
    return torch.randn(3, 3, *[8] * options.get("spatial_dims", 2), dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_images_come_back_from_their_features(options: dict[str, Any]) -> None:
    net, x = network(**options).eval(), images(options)
    features = net.encode(x)
    assert net(x).shape == (3, 5)
    torch.testing.assert_close(net.inverse(features), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_and_statistics_are_exact_under_every_policy(options: dict[str, Any], policy: str) -> None:
    assert_policy_is_exact(network(**options), images(options), policy)


def test_dropout_has_one_mask_in_forward_and_backward() -> None:
    net, x = network(padded_channels=8, dropout=0.5), images({})
    found = []
    for policy in ("stored", "reversible"):
        set_backprop(net, policy)
        net.zero_grad()
        torch.manual_seed(3)
        net(x).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_memory_does_not_grow_with_the_blocks() -> None:
    x = torch.randn(2, 3, 16, 16)

    def kept(count: int) -> int:
        features = IRevNet(3, 5, (count, count), (1, 2), padded_channels=8).features
        set_backprop(features, "reversible")
        return saved_bytes(features, torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 5)))

    assert kept(2) == kept(6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "channels that can be halved, got 3"),
        ({"padded_channels": 2}, "at least the 3 channels"),
        ({"strides": (1,)}, "one stride per stage"),
        ({"strides": (1, 3), "padded_channels": 8}, "strides of 1 or 2"),
        ({"num_blocks": (), "strides": ()}, "positive num_blocks"),
        ({"bottleneck": 0}, "bottleneck >= 1"),
        ({"norm": "magic", "padded_channels": 8}, "expected norm"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_images_that_do_not_fit_are_refused() -> None:
    net = network(padded_channels=8)
    with pytest.raises(ValueError, match="images with 3 channels, got 1"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="divisible by the stride"):
        net(torch.zeros(1, 3, 7, 7, dtype=torch.float64))


def test_the_padding_is_cut_off_and_drops_what_no_image_has() -> None:
    padding, x = InjectivePadding(3, 5), torch.randn(2, 3, 4, 4)
    padded = padding(x)
    assert padded.shape == (2, 5, 4, 4) and not padded[:, 3:].any()
    assert torch.equal(padding.inverse(padded + torch.tensor([0, 0, 0, 1, 1.0]).reshape(5, 1, 1)), x)
    assert InjectivePadding(3)(x) is x


@pytest.mark.skipif("IREVNET_REPO" not in os.environ, reason="IREVNET_REPO names a checkout of the authors' code")
def test_features_are_those_of_the_authors_network() -> None:
    sys.path.insert(0, str(Path(os.environ["IREVNET_REPO"])))
    from models.iRevNet import iRevNet  # type: ignore[import-not-found]

    torch.manual_seed(0)
    theirs = iRevNet([2, 2], [1, 2], 10, nChannels=[4, 16], init_ds=0, dropout_rate=0.0, in_shape=[3, 8, 8]).double()
    ours = IRevNet(3, 10, (2, 2), (1, 2), padded_channels=8).double()
    couplings = [part for part in ours.features if hasattr(part, "subnet")]
    # Their space-to-depth makes channel (place, c) of channel c of 4, ours (c, place).
    order = torch.arange(16).reshape(4, 4).T.flatten()
    for i, (block, coupling) in enumerate(zip(theirs.stack, couplings, strict=True)):
        first, *_, last = convolutions = convolutions_of(block)
        with torch.no_grad():
            if i >= 2:
                last.weight.copy_(last.weight[order])
            if i == 3:
                first.weight.copy_(first.weight[:, order])
            for source, target in zip(convolutions, convolutions_of(coupling), strict=True):  # type: ignore[arg-type]
                target.weight.copy_(source.weight)
            # Back: theirs compute in their own order.
            inverse = order.argsort()
            if i >= 2:
                last.weight.copy_(last.weight[inverse])
            if i == 3:
                first.weight.copy_(first.weight[:, inverse])
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    # Their first block reads the second half of the channels, zeros only; ours reads the first.
    state = tuple(reversed(torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 5)).chunk(2, dim=1)))
    for block in theirs.stack:
        block.pad = 0  # already padded
        state = block(state)
    expected = torch.cat([half[:, order] for half in reversed(state)], dim=1)
    torch.testing.assert_close(ours.encode(x), expected, rtol=1e-10, atol=1e-10)


def convolutions_of(net: nn.Module) -> list[nn.Conv2d]:
    return [part for part in net.modules() if isinstance(part, nn.Conv2d)]
