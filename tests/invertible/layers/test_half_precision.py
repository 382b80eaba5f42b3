"""Log-determinants of states in half precision: exact up to the rounding of the terms, and finite for large images."""

from __future__ import annotations

import copy

import pytest
import torch

from src.invertible import (
    POLICIES,
    ActNorm,
    AffineCoupling,
    FixedAffine,
    FixedLinear,
    FourierConvolution,
    GlobalAffine,
    GlowCoupling,
    Inverse,
    InvertibleConv1x1,
    InvertibleLeakyReLU,
    InvertibleModule,
    LearnedElementwise,
    LearnedLeakyReLU,
    RationalQuadraticSpline,
    Scaling,
    Sequential,
    SneakyReLU,
    invertible_pooling,
    set_backprop,
    sum_per_sample,
)
from tests.invertible.table import NAMES, build

HALF = [torch.float16, torch.bfloat16]
CHANNELS, SIDE = 4, 200  # 160,000 numbers
LARGEST_FLOAT16 = 65504


def subnet(dims_in: int, dims_out: int) -> torch.nn.Module:
    """Constant outputs of 8: log-scales near their clamp."""
    layer = torch.nn.Conv2d(dims_in, dims_out, 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, 8.0)
    return layer


def started(layer: InvertibleModule) -> InvertibleModule:
    """An `ActNorm` that has seen a batch of deviation 1/8."""
    layer(torch.randn(1, CHANNELS, SIDE, SIDE) / 8)
    return layer


LARGE = {
    "actnorm": lambda: started(ActNorm(CHANNELS)),
    "affine": lambda: AffineCoupling(CHANNELS, subnet),
    "conv1x1-lu": lambda: InvertibleConv1x1(CHANNELS, init=2 * torch.eye(CHANNELS)),
    "conv1x1-full": lambda: InvertibleConv1x1(CHANNELS, "full", init=2 * torch.eye(CHANNELS)),
    "elementwise-scaling": lambda: LearnedElementwise((CHANNELS, 1, 1), Scaling(2.0)),
    "elementwise-spline": lambda: LearnedElementwise(
        (CHANNELS, 1, 1), RationalQuadraticSpline(4, domain=(-3, 3, -9, 9))
    ),
    "fixed-affine": lambda: FixedAffine(2.0),
    "fixed-linear": lambda: FixedLinear(2 * torch.eye(CHANNELS)),
    "global-affine": lambda: GlobalAffine(CHANNELS, init=2.0),
    "glow": lambda: GlowCoupling(CHANNELS, subnet),
    "leaky-relu": lambda: InvertibleLeakyReLU(0.01),
    "learned-leaky-relu": lambda: LearnedLeakyReLU(CHANNELS, 2.0, 2.0),
    "pooling": lambda: Sequential(FixedAffine(0.2), invertible_pooling("average", spatial_dims=2)),
    "sneaky-relu": lambda: SneakyReLU(0.01),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning")
@pytest.mark.filterwarnings("ignore::src.invertible.FixedPointWarning")
def test_log_determinants_are_those_of_double_precision(name: str) -> None:
    for dtype in HALF:
        layer, x = build(name)
        layer, x = layer.to(dtype), x.to(dtype)
        expected = copy.deepcopy(layer).double().forward_and_logdet(x.double())[1]
        found = layer.forward_and_logdet(x)[1]
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 2 * torch.finfo(dtype).eps * x[0].numel()


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("name", LARGE)
def test_log_determinants_of_large_images_are_finite(name: str, inverted: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, x = LARGE[name]().to(dtype), torch.randn(1, CHANNELS, SIDE, SIDE).to(dtype)
    if inverted:
        x, layer = layer(x), Inverse(layer)
    with torch.no_grad():
        expected = copy.deepcopy(layer).double().forward_and_logdet(x.double())[1]
        found = layer.forward_and_logdet(x)[1]
    assert expected.abs() > LARGEST_FLOAT16
    torch.testing.assert_close(found.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_have_the_precision_of_the_network(policy: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    parts = (ActNorm(4), GlowCoupling(4, subnet), SneakyReLU(), FourierConvolution(4, spatial_dims=2), GlobalAffine(4))
    net, x = Sequential(*parts), torch.randn(2, 4, 6, 6)
    net(x)
    net, x = net.to(dtype), x.to(dtype).requires_grad_()
    set_backprop(net, policy)
    y, logdet = net.forward_and_logdet(x)
    (y.float().square().sum() - logdet.sum()).backward()
    assert (y.dtype, logdet.dtype) == (dtype, torch.float32)
    for part in (x, *net.parameters()):
        assert part.grad is not None and part.grad.dtype == dtype and part.grad.isfinite().all()


class Constant(InvertibleModule):
    """The identity, with a log-determinant of 0.1 per sample in a precision of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    inverse = forward

    def forward_and_logdet(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(x), torch.full((len(x),), 0.1, dtype=self.dtype)


@pytest.mark.parametrize("policy", POLICIES)
def test_log_determinants_of_several_precisions_are_added_in_the_widest(policy: str) -> None:
    net = Sequential(*map(Constant, (torch.float32, torch.float16, torch.float64)))
    set_backprop(net, policy)
    logdet = net.forward_and_logdet(torch.zeros(2, 4, requires_grad=True))[1]
    expected = sum(torch.tensor(0.1, dtype=part.dtype).double() for part in net)
    assert logdet.dtype == torch.float64
    torch.testing.assert_close(logdet, expected.expand(2), rtol=1e-7, atol=0)


def test_a_sum_is_in_the_precision_of_its_values_from_float32_on() -> None:
    for dtype in (torch.float32, torch.float64):
        values = torch.randn(3, 4, 5, dtype=dtype)
        assert torch.equal(sum_per_sample(values), values.flatten(1).sum(1))
    assert sum_per_sample(torch.ones(3, 2, dtype=torch.uint8)).dtype == torch.float32
