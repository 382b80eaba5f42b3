"""The plain convolutional network and its steps towards invertibility: sizes, symmetries, options."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, Checkerboard, IAvgPool, INearestPool, SneakyReLU, set_backprop
from src.models.convnet import DOWNSAMPLINGS, ConvNet
from src.models.in_place import ReLU

CIRCULAR = {"padding_mode": "circular"}
SNEAKY = CIRCULAR | {"activation": "sneaky_relu"}
# Table 1 of the poster, and each network's number of parameters for CIFAR-10.
STEPS: dict[str, tuple[dict, int]] = {
    "base": ({}, 3_991_434),
    "circular": (CIRCULAR, 3_991_434),
    "sneaky": (SNEAKY, 3_991_434),
    "checkerboard": (SNEAKY | {"downsampling": "checkerboard"}, 7_530_378),
    "nearest": (SNEAKY | {"downsampling": "nearest"}, 7_530_378),
    "average": (SNEAKY | {"downsampling": "average"}, 7_530_378),
}


def small(step: str, **options: object) -> ConvNet:
    """A small network in evaluation mode, its weights so large that differences do not fade from layer to layer."""
    torch.manual_seed(0)
    net = ConvNet(3, 5, 4, **STEPS[step][0] | options).double().eval()
    with torch.no_grad():
        for m in net.features.modules():
            if isinstance(m, nn.Conv2d):
                m.weight.mul_(2)
    return net


def images(size: tuple[int, ...] = (8, 12)) -> Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_of_table_1_has_nine_convolutions_and_its_number_of_parameters(step: str) -> None:
    options, num_parameters = STEPS[step]
    net = ConvNet(3, 10, **options)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert sum(p.numel() for p in net.parameters()) == num_parameters
    first = 256 * (1 if options.get("downsampling", "max") == "max" else 4)
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 128),
        (128, 128),
        (128, 256),
        *[(first, 256), (256, 256), (256, 256)] * 2,
    ]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 9


def test_the_base_has_about_the_four_million_parameters_of_the_poster() -> None:
    assert 3.5e6 < STEPS["base"][1] < 4.5e6


def test_options_choose_the_parts() -> None:
    def kinds(step: str, **options: object) -> list[type]:
        return [type(m) for m in small(step, **options).modules()]

    assert (kinds("base").count(ReLU), kinds("base").count(nn.MaxPool2d)) == (9, 2)
    for step, kind in (("checkerboard", Checkerboard), ("nearest", INearestPool), ("average", IAvgPool)):
        assert (kinds(step).count(SneakyReLU), kinds(step).count(kind)) == (9, 2)
        assert not {ReLU, nn.MaxPool2d, nn.Dropout} & set(kinds(step))
    slopes = {m.slope for m in small("sneaky", slope=0.3).modules() if isinstance(m, SneakyReLU)}
    assert slopes == {0.3}
    assert len(set(DOWNSAMPLINGS)) == 4


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shift", [(1, 0), (3, 5)])
def test_circular_padding_commutes_with_circular_shifts_and_zero_padding_does_not(
    step: str, shift: tuple[int, int]
) -> None:
    net, x = small(step), images()
    features = net.features[:9]
    assert sum(isinstance(m, nn.Conv2d) for m in features) == 3
    difference = features(x.roll(shift, (2, 3))) - features(x).roll(shift, (2, 3))
    assert (difference.abs().max() < 1e-12) == (step != "base")


@pytest.mark.parametrize("step", STEPS)
def test_with_circular_padding_the_logits_do_not_see_shifts_by_multiples_of_both_strides(step: str) -> None:
    net, x = small(step), images()
    difference = (net(x.roll((4, 8), (2, 3))) - net(x)).abs().max()
    assert (difference < 1e-12) == (step != "base")
    # A shift by one voxel is not a shift of the coarser features.
    assert (net(x.roll(1, 2)) - net(x)).abs().max() > 1e-6


def test_dropout_stands_behind_each_downsampling_and_acts_in_training_only() -> None:
    net = small("average", dropout=0.5)
    kinds = [type(m) for m in net.features]
    assert [kinds[i - 1] for i, kind in enumerate(kinds) if kind is nn.Dropout] == [IAvgPool, IAvgPool]
    plain = small("average")
    x = images()
    assert torch.equal(net(x), plain(x))
    for m in net.modules():
        if isinstance(m, nn.Dropout):
            m.train()
    assert (net(x) - plain(x)).abs().max() > 1e-3


@pytest.mark.parametrize(("d", "downsampling"), list(itertools.product([1, 2, 3], DOWNSAMPLINGS)))
def test_dimensions_and_gradients(d: int, downsampling: str) -> None:
    net = ConvNet(2, 3, 2, downsampling=downsampling, spatial_dims=d)
    y = net(torch.randn(2, 2, *(8, 4, 4)[:d]))
    assert y.shape == (2, 3)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_under_every_policy_are_those_of_plain_autograd(policy: str) -> None:
    def gradients(net: ConvNet, policy: str) -> list[Tensor]:
        net = copy.deepcopy(net).train()
        set_backprop(net, policy)
        net(images()).square().sum().backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    net = small("average")
    for found, expected in zip(gradients(net, policy), gradients(net, "stored"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


BAD = {
    "padding": (
        lambda: ConvNet(3, 2, padding_mode="reflect"),
        "padding_mode to be one of zeros, circular, got 'reflect'",
    ),
    "activation": (lambda: ConvNet(3, 2, activation="tanh"), "activation to be one of relu, sneaky_relu, got 'tanh'"),
    "downsampling": (lambda: ConvNet(3, 2, downsampling="stride"), "one of max, checkerboard, nearest, average, got"),
    "dimension": (lambda: ConvNet(3, 2, spatial_dims=4), "spatial_dims to be 1, 2 or 3, got 4"),
    "slope": (lambda: ConvNet(3, 2, activation="sneaky_relu", slope=0.0), r"slope in \(0, 1\], got 0.0"),
    "channels": (lambda: small("base")(torch.zeros(1, 1, 8, 8)), "expected 3 channels, got 1"),
    "size": (lambda: small("nearest")(images((8, 6))), r"divisible by the stride \(2, 2\), got \(4, 3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_refuses(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_circular_padding_is_torchs(spatial_dims: int) -> None:
    net = ConvNet(2, 3, 2, spatial_dims=spatial_dims, **CIRCULAR).double()
    convolution = net.features[0]
    plain = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims](2, 2, 3, padding=1, bias=False, **CIRCULAR)
    plain.weight = convolution.weight
    x = torch.randn(2, 2, *(4, 5, 6)[:spatial_dims], dtype=torch.float64, requires_grad=True)
    found, expected = convolution(x), plain(x)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), [x, plain.weight]) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    per_sample = torch.func.vmap(torch.func.grad(lambda one: convolution(one[None]).square().sum()))(x)
    torch.testing.assert_close(per_sample, gradients[1][0], rtol=1e-12, atol=1e-12)
