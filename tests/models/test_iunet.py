"""What only the iUNet promises: codes and their inverses, layers by place, the inverse of padded sizes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from src.invertible import AdditiveCoupling, ElementwiseCoupling, GlowCoupling, InvertibleModule, set_backprop
from src.invertible.layers.splines import RationalQuadraticSpline
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet
from src.models.iunet_parts import Place
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.layers.test_oracles import gradients
from tests.marks import slow


def perturbed(net: IUNet) -> IUNet:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.double().parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def small(**options: Any) -> IUNet:
    return perturbed(IUNet((4, 8, 8), (2, 1, 3), 2, **options))


def test_codes_lie_between_encoder_and_decoder() -> None:
    net = small()
    x = torch.randn(2, 4, 8, 4, dtype=torch.float64)
    codes = net.encode(x)
    y = net.decode(codes)
    torch.testing.assert_close(y, net(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(net.encoder_inverse(codes), x, rtol=0, atol=1e-12)
    found = net.decoder_inverse(y)
    assert [code.shape for code in found] == [(2, 2, 8, 4), (2, 6, 4, 2), (2, 8, 2, 1)]
    for a, b in zip(found, codes, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_codes_are_differentiable_both_ways() -> None:
    net = small()
    y = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad((net.encoder_inverse(net.decoder_inverse(y)) ** 3).sum(), y)
    (expected,) = torch.autograd.grad((net.inverse(y) ** 3).sum(), y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["decode", "encoder_inverse"])
def test_codes_of_another_number_are_refused(method: str) -> None:
    with pytest.raises(ValueError, match="expected 3 codes, one per level, got 1"):
        getattr(small(), method)([torch.zeros(1, 4, 4, 4)])


def test_codes_of_a_size_that_would_need_padding_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a spatial size divisible by \(4, 4\), got \(6, 4\)"):
        small(padding_mode="reflect").decoder_inverse(torch.zeros(1, 4, 6, 4))


def test_padded_inverse_is_exact_on_whole_sizes_and_keeps_others() -> None:
    net = small(padding_mode="constant")
    x = torch.randn(1, 4, 8, 4, dtype=torch.float64)
    torch.testing.assert_close(net.padded_inverse(net(x)), x, rtol=0, atol=1e-12)
    y = torch.randn(1, 4, 7, 5, dtype=torch.float64)
    found = net.padded_inverse(y)
    expected = net.inverse(net.padding.pad(y))
    torch.testing.assert_close(found, net.padding.crop(expected, (7, 5)), rtol=0, atol=1e-12)
    assert found.shape == y.shape


def layer_at(channels: int, place: Place) -> InvertibleModule:
    """Splines on the coarsest level, affine couplings in decoders, deeper subnets on deeper levels."""
    subnet = functools.partial(ConvBlock, spatial_dims=2, depth=1 + place.level)
    flip = place.index % 2 == 1
    if place.level == 2:
        return ElementwiseCoupling(channels, subnet, RationalQuadraticSpline(3), flip=flip)
    return (GlowCoupling if place.branch == "decoder" else AdditiveCoupling)(channels, subnet, flip=flip)


@pytest.mark.parametrize(("mixing_frequency", "actnorm"), [(0, False), slow(-1, True), slow(1, False)])
def test_each_place_has_its_own_layer(mixing_frequency: int, actnorm: bool) -> None:
    places: list[Place] = []

    def construct(channels: int, place: Place) -> InvertibleModule:
        places.append(place)
        assert channels == (4, 8, 8)[place.level]
        return layer_at(channels, place)

    net = small(layer_at=construct, mixing_frequency=mixing_frequency, actnorm=actnorm)
    counts = (2, 1, 3)
    sides = ("encoder", "decoder")
    assert set(places) == {Place(level, side, i) for level in range(3) for side in sides for i in range(counts[level])}
    assert len(places) == 2 * sum(counts)
    x = torch.randn(2, 4, 4, 8, dtype=torch.float64)
    torch.testing.assert_close(net.inverse(net(x)), x, rtol=0, atol=1e-8)
    expected, found = (gradients(net, "forward_and_logdet", policy, x) for policy in ("stored", "reversible"))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-7 * float(value.abs().max()) + 1e-9)


def test_decoders_mirror_encoders() -> None:
    """Equal indices face each other: the last layer of the decoder has index 0."""

    class Named(AdditiveCoupling):
        place: Place

    def construct(channels: int, place: Place) -> Named:
        layer = Named(channels, functools.partial(ConvBlock, spatial_dims=1))
        layer.place = place
        return layer

    net = IUNet((4,), 3, 1, layer_at=construct)
    order = [part.place for part in net.modules() if isinstance(part, Named)]
    expected = [("encoder", 0), ("encoder", 1), ("encoder", 2), ("decoder", 2), ("decoder", 1), ("decoder", 0)]
    assert [(place.branch, place.index) for place in order] == expected


def test_layers_by_place_exclude_subnet_and_coupling() -> None:
    for options in ({"subnet": ConvBlock}, {"coupling": GlowCoupling}):
        with pytest.raises(ValueError, match="expected either layer_at, or subnet and coupling, got both"):
            IUNet((4, 8), 1, 2, layer_at=layer_at, **options)  # type: ignore[arg-type]


def test_a_network_of_different_layers_keeps_its_output_alone() -> None:
    net = small(layer_at=layer_at)
    set_backprop(net, "reversible")
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    assert saved_bytes(net, x) == x.numel() * x.element_size()
