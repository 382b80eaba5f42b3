"""The i-RevNet: exact inverse, gradients, statistics, memory, and the authors' own network beside it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from torch import nn

from src.invertible import POLICIES, AdditiveCoupling, set_backprop
from src.models.invertible_classifier import InjectivePadding
from src.models.irevnet import IRevNet
from tests.invertible.engine.test_backprop import saved_bytes
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
        ({}, "an even number of channels, got 3"),
        ({"padded_channels": 2}, "padded channels >= 3"),
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
    with pytest.raises(ValueError, match="expected 3 channels, got 1"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="divisible by the stride"):
        net(torch.zeros(1, 3, 7, 7, dtype=torch.float64))


def test_the_padding_is_cut_off_and_drops_what_no_image_has() -> None:
    padding, x = InjectivePadding(3, 5), torch.randn(2, 3, 4, 4)
    padded = padding(x)
    assert padded.shape == (2, 5, 4, 4) and not padded[:, 3:].any()
    assert torch.equal(padding.inverse(padded + torch.tensor([0, 0, 0, 1, 1.0]).reshape(5, 1, 1)), x)
    assert InjectivePadding(3)(x) is x


# Theirs and ours. Widths are those of one half in theirs.
CONFIGURATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "injective, as for CIFAR": (
        {"nBlocks": [3, 2, 2], "nStrides": [1, 2, 2], "nChannels": [8, 32, 128], "init_ds": 0},
        {"num_blocks": (3, 2, 2), "strides": (1, 2, 2), "padded_channels": 16},
    ),
    "bijective, as for ImageNet": (
        {"nBlocks": [2, 1], "nStrides": [2, 2], "nChannels": [24, 96], "init_ds": 2},
        {"num_blocks": (2, 1), "strides": (2, 2), "initial_downsampling": 2},
    ),
    "injective after a space-to-depth": (
        {"nBlocks": [2, 2], "nStrides": [1, 2], "nChannels": [10, 40], "init_ds": 2},
        {"num_blocks": (2, 2), "strides": (1, 2), "initial_downsampling": 2, "padded_channels": 5},
    ),
}


@pytest.mark.skipif("IREVNET_REPO" not in os.environ, reason="IREVNET_REPO names a checkout of the authors' code")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("their_options", "our_options"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_network_is_that_of_the_authors(
    their_options: dict[str, Any],
    our_options: dict[str, Any],
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(os.environ["IREVNET_REPO"])
    module = importlib.import_module("models.iRevNet")
    torch.manual_seed(0)
    theirs = module.iRevNet(**their_options, nClasses=5, in_shape=[3, 16, 16], mult=4).to(dtype)
    move_normalisations(theirs)
    ours = IRevNet(3, 5, **our_options).to(dtype)
    half = their_options["nChannels"][0] // their_options["nStrides"][0] ** 2
    order = copy_weights(theirs, ours, half)
    x = torch.randn(2, 3, 16, 16, dtype=dtype)
    for training in (False, True):
        theirs.train(training)
        ours.train(training)
        expected, features = theirs_on(theirs, x, half), ours.encode(x)
        assert (features[:, order] - expected).abs().max() < tolerance * expected.abs().max()
        assert (ours.inverse(features) - x).abs().max() < 10 * tolerance
        logits = theirs.linear(torch.relu(theirs.bn1(expected)).mean((2, 3)))
        assert (ours(x) - logits).abs().max() < tolerance * logits.abs().max()


def theirs_on(theirs: Any, x: torch.Tensor, half: int) -> torch.Tensor:
    """The authors' features, with the halves exchanged at the start: ours begins by reading the image's half."""
    x = theirs.init_psi.forward(x) if theirs.init_ds else x
    x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 2 * half - x.shape[1]))
    state = tuple(reversed(x.chunk(2, dim=1)))
    for block in theirs.stack:
        block.pad = 0  # already padded
        state = block.forward(state)
    return torch.cat(state, dim=1)


def copy_weights(theirs: Any, ours: IRevNet, half: int) -> torch.Tensor:
    """Copy the authors' weights into ours; returns where in ours each of their feature channels stands."""
    couplings = [part for part in ours.features if isinstance(part, AdditiveCoupling)]
    # Which half of ours, and where in it: of the half that a block of theirs changes, and of the one it reads.
    changed, read = (1, torch.arange(half)), (0, torch.arange(half))
    for block, coupling in zip(theirs.stack, couplings, strict=True):
        source, target = layers_of(block), layers_of(coupling)
        order_in = read[1]
        if block.stride == 2:  # theirs orders the channels (place, c), ours (c, place)
            changed, read = ((which, (4 * o + torch.arange(4)[:, None]).flatten()) for which, o in (changed, read))
        states = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in source]
        for state, layer in zip(states, source, strict=True):
            if isinstance(layer, nn.Conv2d):  # the first convolution; a normalisation before it sees the same channels
                state["weight"] = state["weight"][:, order_in.argsort()]
                break
            permute(state, order_in)
        states[-1]["weight"] = states[-1]["weight"][changed[1].argsort()]
        for state, layer in zip(states, target, strict=True):
            layer.load_state_dict(state)
        changed, read = read, changed
    order = torch.cat([which * o.numel() + o for which, o in (changed, read)])
    normalisation, *_, linear = ours.head
    normalisation.load_state_dict(permute(theirs.bn1.state_dict(), order))
    linear.load_state_dict(
        {"weight": theirs.linear.weight.detach()[:, order.argsort()], "bias": theirs.linear.bias.detach()}
    )
    return order


def permute(state: dict[str, torch.Tensor], order: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state of a normalisation with its channels where ``order`` says, in place."""
    state.update({key: value[order.argsort()] for key, value in state.items() if value.ndim})
    return state


def layers_of(net: nn.Module) -> list[nn.Module]:
    return [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]


def move_normalisations(net: nn.Module) -> None:
    """Away from their start, which would hide a permutation."""
    with torch.no_grad():
        for layer in layers_of(net):
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    tensor.add_(0.6 * torch.rand_like(tensor) - 0.3)  # type: ignore[union-attr, arg-type]
