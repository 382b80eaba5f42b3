"""Weights of cetmann/iunets against that implementation itself."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from src.invertible import AdditiveCoupling, set_backprop
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet
from src.models.iunet_parts import Place
from src.models.iunets_weights import iunet_from_iunets

iunets = pytest.importorskip("iunets", reason="github.com/cetmann/iunets is not on the import path")

# The odd ones leave the channels turned, with and without a mixing behind them; odd channel numbers alternate sizes.
CONFIGS: dict[str, dict[str, Any]] = {
    "1d": {"dim": 1, "channels": (4, 8, 12), "architecture": (2, 3, 1)},
    "2d": {"dim": 2, "channels": (5, 12, 24), "architecture": (3, 2, 3)},
    "3d": {"dim": 3, "channels": (4, 16), "architecture": (2, 2)},
    "3d-odd": {"dim": 3, "channels": (3, 8), "architecture": (1, 3)},
    "every-second": {"dim": 2, "channels": (6, 12), "architecture": (5, 4), "channel_mixing_freq": 2},
    "no-mixing": {"dim": 2, "channels": (5, 8), "architecture": (3, 2), "channel_mixing_freq": 0},
    "depth-strides": {
        "dim": 2,
        "channels": (6, 6, 8),
        "architecture": (2, 1, 0),
        "module_kwargs": {"depth": 3},
        "resampling_stride": [(2, 1), (2, 2)],
    },
}


@pytest.fixture(autouse=True)
def torch_lu(monkeypatch: pytest.MonkeyPatch) -> None:
    """They solve with ``torch.lu``, which torch no longer has: the same by its successor."""
    monkeypatch.setattr(torch, "lu", lambda a, pivot=True: torch.linalg.lu_factor(a, pivot=pivot), raising=False)
    monkeypatch.setattr(torch, "lu_solve", lambda b, lu, pivots: torch.linalg.lu_solve(lu, pivots, b), raising=False)


def theirs(options: dict[str, Any], method: str) -> Any:
    torch.manual_seed(0)
    net = iunets.iUNet(
        resampling_method=method,
        channel_mixing_method=method,
        disable_custom_gradient=True,
        verbose=0,
        **options,
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


def loaded(options: dict[str, Any], method: str) -> tuple[Any, Any]:
    net = theirs(options, method)
    strides = options.get("resampling_stride", 2)
    ours = iunet_from_iunets(net.state_dict(), strides=strides, resampling_method=method, mixing_method=method)
    return net, ours


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("method", ["exp", "cayley"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_codes_and_inverses_are_theirs(name: str, method: str) -> None:
    net, ours = loaded(CONFIGS[name], method)
    x = torch.randn(2, net.channels[0], *(16, 8, 8)[: net.dim])
    with torch.no_grad():
        y = ours(x)
        torch.testing.assert_close(y, net(x), rtol=1e-5, atol=1e-5)
        for found, expected in zip(ours.encode(x), net.encode(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.inverse(y), x, rtol=0, atol=1e-4)
        for found, expected in zip(ours.decoder_inverse(y), net.decoder_inverse(y), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        codes = net.encode(x)
        torch.testing.assert_close(ours.encoder_inverse(codes), net.encoder_inverse(*codes), rtol=0, atol=1e-4)


def test_padding_is_theirs() -> None:
    net, ours = loaded(CONFIGS["2d"], "exp")
    x = torch.randn(1, 5, 7, 10)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net(x), rtol=0, atol=1e-5)


def test_inverse_of_padded_sizes_is_theirs() -> None:
    net, ours = loaded(CONFIGS["2d"], "exp")
    y = torch.randn(1, 5, 7, 10)
    with torch.no_grad():
        torch.testing.assert_close(ours.padded_inverse(y), net.inverse(y), rtol=0, atol=1e-4)


def test_layers_by_place_are_theirs() -> None:
    """Blocks whose depth depends on level, branch and index, by their `create_module_fn` and our `layer_at`."""
    theirs_at: set[tuple[int, str, int]] = set()

    def depth(level: int, branch: str, index: int) -> int:
        return 1 + level + (branch == "decoder") + index

    def create(channels: int, **place: Any) -> Any:
        theirs_at.add((place["level"], place["branch"], place["module_index"]))
        options = {"dim": 2, "module_index": place["module_index"]}
        place = {"level": place["level"], "branch": place["branch"], "index": place["module_index"]}
        return iunets.layers.create_standard_module(channels, depth=depth(**place), **options)

    net, ours = loaded(CONFIGS["2d"] | {"create_module_fn": create}, "cayley")
    x = torch.randn(1, 5, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net(x), rtol=1e-4, atol=1e-4)
    ours_at: set[tuple[int, str, int]] = set()

    def layer_at(channels: int, place: Place) -> AdditiveCoupling:
        # Theirs counts from the start of either branch.
        count = CONFIGS["2d"]["architecture"][place.level]
        index = place.index if place.branch == "encoder" else count - 1 - place.index
        ours_at.add((place.level, place.branch, index))
        convolutions = depth(place.level, place.branch, index)
        subnet = functools.partial(
            ConvBlock, spatial_dims=2, depth=convolutions, norm="instance", final_activation=True
        )
        return AdditiveCoupling(channels, subnet, flip=place.index % 2 == 1)

    IUNet(CONFIGS["2d"]["channels"], CONFIGS["2d"]["architecture"], 2, layer_at=layer_at)
    assert ours_at == theirs_at


def test_gradients_of_the_convolutions_are_theirs() -> None:
    net, ours = loaded(CONFIGS["2d"], "exp")
    # Not those of the matrices: their hand-written derivatives of exp and Cayley differ from the true ones.
    set_backprop(ours, "reversible")
    x = torch.randn(1, 5, 8, 8)
    for network in (net, ours):
        (network(x.clone()) ** 2).sum().backward()
    expected = net.encoder_modules[0][1]._fn.F.F[0].weight.grad
    found = ours.body.encoder[1].subnet.conv0.weight.grad
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_what_it_cannot_represent_is_refused() -> None:
    state = theirs(CONFIGS["2d"], "exp").state_dict()
    with pytest.raises(ValueError, match="expected mixing_method to be one of cayley, exp, got 'householder'"):
        iunet_from_iunets(state, mixing_method="householder")
    with pytest.raises(ValueError, match=r"expected strides with products \[4, 4\]"):
        iunet_from_iunets(state, strides=(2, 1))
    with pytest.raises(ValueError, match="whose first layer is a coupling"):
        iunet_from_iunets({"conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"got additional weights extra\.weight"):
        iunet_from_iunets(state | {"extra.weight": torch.zeros(1)})
    batch = theirs(CONFIGS["2d"] | {"module_kwargs": {"normalization": "batch"}}, "exp").state_dict()
    with pytest.raises(ValueError, match=r"instance norm only, got .*running_mean"):
        iunet_from_iunets(batch)
    bare = theirs(CONFIGS["2d"] | {"module_kwargs": {"normalization": None}}, "exp").state_dict()
    with pytest.raises(ValueError, match=r"with instance norm, but .* is missing"):
        iunet_from_iunets(bare)
    key = "encoder_modules.0.0._fn.F.F.0.weight"
    with pytest.raises(ValueError, match=r"(?s)default coupling layers: .*size mismatch"):
        iunet_from_iunets(state | {key: state[key][..., :1]})
    key = "downsampling_layers.0._fn.weight"
    with pytest.raises(ValueError, match="expected matrices of shape"):
        iunet_from_iunets(state | {"upsampling_layers.0._fn.weight": state[key][:1]})
