"""What is particular to elementwise maps: starts, tails, work and memory in backward, old names, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import Inverse, Sequential, TwoSidedCoupling, set_backprop
from src.invertible.layers.affine import Affine, AffineCoupling, GlowCoupling, Scaling
from src.invertible.layers.elementwise import ConditionalElementwise, ElementwiseCoupling, LearnedElementwise
from src.invertible.layers.gaussian_mixture import GaussianMixture
from src.invertible.layers.linear import FixedLinear
from src.invertible.layers.resampling import HaarDownsampling
from src.invertible.layers.splines import LinearSpline, RationalQuadraticSpline
from src.models.realnvp import ScaledTanh
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.table.elementwise import SPLINES, spline_coupling
from tests.invertible.table.samples import dense, subnet

FAMILIES = {"linear": LinearSpline, "rational": RationalQuadraticSpline}
IDENTITIES = [name for name in SPLINES if "domain" not in name and "clamp" not in name]


@pytest.mark.parametrize("options", IDENTITIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_coefficients_of_zero_give_the_identity_on_a_square(name: str, options: str) -> None:
    layer = LearnedElementwise((3,), FAMILIES[name](**SPLINES[options])).double()
    x = 3 * torch.randn(50, 3, dtype=torch.float64)
    y, logdet = layer.forward_and_logdet(x)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(logdet, torch.zeros(50).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_zero_coefficients_map_the_domain_to_its_range(name: str) -> None:
    family = FAMILIES[name](4, domain=(-1.0, 3.0, 2.0, 4.0))
    spline = family(torch.zeros(1, family.num_coefficients, dtype=torch.float64))
    y, _ = spline.forward(torch.tensor([[-1.0], [1.0], [3.0], [5.0]], dtype=torch.float64))
    torch.testing.assert_close(y[:, 0], torch.tensor([2.0, 3.0, 4.0, 5.0]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_tails_are_the_identity_or_the_line_through_the_outer_knots(name: str) -> None:
    torch.manual_seed(0)
    far = torch.tensor([[-50.0], [-40.0], [40.0], [50.0]], dtype=torch.float64)
    for tails in (True, False):
        family = FAMILIES[name](5, identity_tails=tails)
        spline = family(torch.randn(1, family.num_coefficients, dtype=torch.float64))
        y, log_derivative = spline.forward(far)
        assert (torch.equal(y, far) and not log_derivative.any()) or not tails
        slopes = (y[1:] - y[:-1]) / (far[1:] - far[:-1])
        torch.testing.assert_close(slopes, slopes[:1].expand(3, 1))
        torch.testing.assert_close(log_derivative, slopes[:1].log().expand(4, 1))


def test_rational_splines_have_a_continuous_derivative_and_linear_ones_have_not() -> None:
    torch.manual_seed(0)
    jumps = {}
    for name, construct in FAMILIES.items():
        family = construct(5)
        spline = family(torch.randn(1, family.num_coefficients, dtype=torch.float64))
        knots = spline.x[0, 0]  # (K + 1,)
        left, right = (spline.forward((knots + sign * 1e-9)[:, None])[1] for sign in (-1, 1))
        jumps[name] = (left - right).abs().amax()
    assert jumps["rational"] < 1e-6
    assert jumps["linear"] > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_extreme_coefficients_stay_finite(name: str) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name](8, identity_tails=True)
    theta = (100 * torch.randn(1, family.num_coefficients)).requires_grad_()
    x = 3 * torch.randn(64, 1)
    y, log_derivative = family(theta).forward(x)
    (y.sum() + log_derivative.sum()).backward()
    assert y.isfinite().all() and theta.grad is not None and theta.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_splines_in_half_precision_have_distinct_knots(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = LearnedElementwise((64,), FAMILIES[name](8, identity_tails=True))
    nn.init.normal_(layer.theta, std=3.0)
    layer, x = layer.to(dtype), torch.randn(20, 64, dtype=dtype)
    y, logdet = layer.forward_and_logdet(x)
    logdet.sum().backward()
    assert layer.theta.grad is not None and layer.theta.grad.isfinite().all()
    expected, expected_logdet = layer.double().forward_and_logdet(x.double())
    torch.testing.assert_close(y, expected.to(dtype))
    torch.testing.assert_close(logdet.double(), expected_logdet, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coefficient", [-20.0, -90.0, -105.0, -1000.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_smallest_domain_is_not_empty(name: str, coefficient: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    family = FAMILIES[name](8, identity_tails=True)
    theta = torch.randn(1, family.num_coefficients, dtype=dtype)
    theta[:, 16] = coefficient
    theta.requires_grad_()
    x = torch.cat((3e-6 * torch.linspace(-1, 1, 65, dtype=dtype), torch.randn(20, dtype=dtype)))[:, None]
    for function, u in ((family(theta).forward, x), (family(theta).inverse, family(theta).forward(x)[0].detach())):
        v, log_derivative = function(u.requires_grad_())
        grads = torch.autograd.grad(v.sum() + log_derivative.sum(), [u, theta])
        assert all(part.isfinite().all() for part in (v, log_derivative, *grads))
    torch.testing.assert_close(v, x, rtol=1e-3, atol=1e-11)


def test_a_domain_of_ordinary_size_is_that_of_its_coefficient() -> None:
    family = LinearSpline(4, identity_tails=True)
    sizes = torch.linspace(-14, 20, 100)
    x, y, _ = family.knots(torch.cat((torch.zeros(100, 8), sizes[:, None]), dim=1).flatten()[None])
    expected = 3 * nn.functional.softplus(sizes.double() + math.log(math.expm1(1.0)))
    for knots in (x, y):
        torch.testing.assert_close(knots[0, :, -1].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("flat", [False, True])
def test_the_inverse_of_a_rational_spline_is_finite_at_its_knots(flat: bool) -> None:
    torch.manual_seed(0)
    family = RationalQuadraticSpline(8)
    theta = 3 * torch.randn(64, family.num_coefficients)
    if flat:  # derivatives of 1e-9 at the inner knots
        theta[:, -7:] = -21.0
    theta = theta.flatten()[None].requires_grad_()
    spline = family(theta)
    knots = spline.y[0].T.detach()  # (K + 1, 64)
    y = torch.cat((knots, torch.nextafter(knots, knots + 1), torch.nextafter(knots, knots - 1))).requires_grad_()
    x, log_derivative = spline.inverse(y)
    (gradient,) = torch.autograd.grad(x.sum() + log_derivative.sum(), theta)
    assert x.isfinite().all() and log_derivative.isfinite().all() and gradient.isfinite().all()
    if not flat:
        torch.testing.assert_close(log_derivative, -spline.forward(x)[1], rtol=0, atol=0.1)


def test_a_smallest_derivative_keeps_the_identity_and_bounds_those_at_the_inner_knots() -> None:
    torch.manual_seed(0)
    family, plain = (RationalQuadraticSpline(8, min_derivative=minimum) for minimum in (0.1, 0.0))
    theta = 20 * torch.randn(64, family.num_coefficients)
    assert plain(theta).derivatives[:, :, 1:-1].min() < 1e-6
    assert family(theta).derivatives[:, :, 1:-1].min() >= 0.1
    knots = family(torch.zeros(1, family.num_coefficients)).derivatives
    torch.testing.assert_close(knots, torch.ones(1, 1, 9))


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
def test_a_spline_couplings_subnet_runs_once_in_backward(method: str) -> None:
    net = Sequential(TwoSidedCoupling(spline_coupling, 4, dense), spline_coupling(4, dense).inverted())
    set_backprop(net, "reversible")
    calls: list[nn.Module] = []
    for part in net.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda module, *_: calls.append(module))
    result = getattr(net, method)(torch.randn(3, 4))
    assert len(calls) == 6
    outputs = result if isinstance(result, tuple) else (result,)
    torch.stack([part.sum() for part in outputs]).sum().backward()
    assert len(calls) == 12


def test_a_conditional_layers_subnet_runs_once_in_backward() -> None:
    layer = ConditionalElementwise(4, nn.Linear, RationalQuadraticSpline(3), condition_channels=2)
    set_backprop(layer, "reversible")
    calls: list[nn.Module] = []
    layer.subnet.register_forward_hook(lambda module, *_: calls.append(module))
    layer(torch.randn(3, 4), torch.randn(3, 2)).sum().backward()
    assert len(calls) == 2


def test_saved_bytes_of_a_spline_flow_do_not_grow_with_depth() -> None:
    x = torch.randn(2, 4, 8, 8).requires_grad_()
    saved = {}
    for depth in (2, 8):
        net = Sequential(*(spline_coupling(4, subnet(2), flip=bool(i % 2)) for i in range(depth)))
        set_backprop(net, "reversible")
        saved[depth] = saved_bytes(net, x)
    assert saved[2] == saved[8] == x.numel() * x.element_size()


def test_affine_couplings_keep_the_names_of_their_parameters() -> None:
    clamp = ScaledTanh(2, 0)
    assert [n for n, _ in AffineCoupling(4, nn.Linear, clamp_activation=clamp).named_parameters()] == [
        "clamp_activation.scale",
        *(f"subnet_{which}.{kind}" for which in "st" for kind in ("weight", "bias")),
    ]
    assert list(GlowCoupling(4, nn.Linear).state_dict()) == ["subnet.weight", "subnet.bias"]


def test_an_affine_family_in_a_coupling_is_glows_coupling() -> None:
    torch.manual_seed(0)
    glow = GlowCoupling(5, dense, clamp=1.5, clamp_activation="tanh").double()
    general = ElementwiseCoupling(5, dense, Affine(1.5, "tanh")).double()
    general.load_state_dict(glow.state_dict())
    x = torch.randn(3, 5, dtype=torch.float64)
    for layer, other in ((glow, general), (Inverse(glow), Inverse(general))):
        for a, b in zip(layer.forward_and_logdet(x), other.forward_and_logdet(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_a_clamp_with_parameters_is_trained_in_a_family_too() -> None:
    layer = ElementwiseCoupling(4, dense, Affine(clamp_activation=ScaledTanh(2, 0)))
    for policy in ("stored", "reversible"):
        set_backprop(layer, policy)
        layer.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        layer(torch.randn(3, 4)).square().sum().backward()
        gradient = layer.get_parameter("elementwise.clamp_activation.scale").grad
        assert gradient is not None
        if policy == "stored":
            expected = gradient
    torch.testing.assert_close(gradient, expected)


def test_options_of_the_other_kind_of_tails_do_not_bound_the_number_of_bins() -> None:
    assert LinearSpline(100, identity_tails=True).num_coefficients == 201
    assert LinearSpline(1000, domain=(-300.0, 300.0, -300.0, 300.0)).num_coefficients == 2002


def mixture(samples: int) -> tuple[Tensor, Tensor]:
    """Means and factors of four components in 2D."""
    return torch.randn(samples, 4, 2), torch.randn(samples, 4, 3)


@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_a_mixture_is_evaluated_in_single_precision_under_autocast(method: str) -> None:
    torch.manual_seed(0)
    x, condition = torch.randn(3, 4, 2), mixture(3)
    expected = getattr(GaussianMixture(2), method)(x, condition)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(getattr(GaussianMixture(2), method)(x, condition), expected, rtol=1e-6, atol=1e-6)


def test_a_mixture_in_half_precision_is_inverted_there() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 2, dtype=torch.bfloat16)
    means, factors = (0.5 * part.bfloat16() for part in mixture(3))
    found = GaussianMixture(2).inverse(GaussianMixture(2)(x, (means, factors)), (means, factors))
    torch.testing.assert_close(found, x, rtol=0.1, atol=0.1)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "bins": (lambda: LinearSpline(0), "expected num_bins >= 1, got 0"),
    "domain": (lambda: LinearSpline(domain=(1.0, -1.0, 0.0, 5.0)), "expected a domain wider than num_bins"),
    "bin sizes": (lambda: RationalQuadraticSpline(10, min_bin_sizes=(0.1, 0.7)), "expected a domain wider than"),
    "fraction": (
        lambda: LinearSpline(10, min_bin_fraction=0.1, identity_tails=True),
        r"num_bins \* min_bin_fraction < 1, got 10 \* 0.1",
    ),
    "empty domain": (
        lambda: LinearSpline(domain=(1.0, 1.0, 0.0, 5.0), identity_tails=True),
        "expected a domain wider than num_bins",
    ),
    "clamp": (lambda: LinearSpline(domain_clamp=0.0), "expected a positive domain_clamp or None, got 0.0"),
    "flat": (lambda: RationalQuadraticSpline(min_derivative=1.0), r"min_derivative in \[0, 1\), got 1.0"),
    "negative": (lambda: RationalQuadraticSpline(min_derivative=-0.1), r"min_derivative in \[0, 1\), got -0.1"),
    "scale": (lambda: Scaling(0.0), "expected a positive scale to start with, got 0.0"),
    "volume": (
        lambda: GlowCoupling(4, dense, volume_preserving="image"),
        "volume_preserving to be False, True or 'voxel', got 'image'",
    ),
    "channels": (lambda: spline_coupling(4, dense)(torch.zeros(1, 5)), "expected 4 channels, got 5"),
    "no condition": (
        lambda: ConditionalElementwise(4, dense, Affine(), condition_channels=0),
        "expected condition_channels >= 1, got 0",
    ),
    "missing condition": (
        lambda: ConditionalElementwise(4, dense, Affine(), condition_channels=2)(torch.zeros(1, 4)),
        "expected a condition of 2 channels, got none",
    ),
    "shape": (
        lambda: LearnedElementwise((3, 4), Scaling())(torch.zeros(1, 3, 5)),
        r"expected a state of shape \(B, 3, 4\), got \(1, 3, 5\)",
    ),
    "shared channels": (lambda: LearnedElementwise((1, 4), Scaling())(torch.zeros(1, 3, 4)), "expected 1 channels"),
    "mixture": (
        lambda: GaussianMixture(2)(torch.zeros(3, 2), (torch.zeros(3, 4, 2), torch.zeros(3, 4, 2), torch.zeros(3))),
        "expected means, factors and state of shapes",
    ),
    "components": (
        lambda: GaussianMixture(2)(torch.zeros(3, 2), (*mixture(3), torch.zeros(3, 1))),
        r"expected components of shape \(3,\), got \(3, 1\)",
    ),
    "likelihood": (
        lambda: GaussianMixture(2).log_likelihood(torch.zeros(1, 2), torch.zeros(3, 4), *mixture(3)),
        "expected x, log_weights, means and factors of shapes",
    ),
    "mixture without": (lambda: GaussianMixture(2)(torch.zeros(3, 2)), "expected means, factors and possibly"),
    "singular": (lambda: FixedLinear(torch.ones(2, 2)), "expected an invertible matrix, got condition number"),
    "not square": (lambda: FixedLinear(torch.ones(2, 3)), r"expected a square matrix, got shape \(2, 3\)"),
    "offset": (lambda: FixedLinear(torch.eye(2), [1.0]), r"expected an offset of shape \(2,\), got \(1,\)"),
    "rebalance": (lambda: HaarDownsampling(2, spatial_dims=2, rebalance=0), "expected a scale other than zero"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
