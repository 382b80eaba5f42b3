"""What is particular to residual blocks: convergence of the inverse, log-determinant estimators."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from src.invertible import Inverse, Sequential, set_backprop
from src.invertible.layers.lipschitz import LipSwish
from src.invertible.layers.logdet import ExactLogDet, LogDetEstimator, RussianRouletteLogDet, TruncatedLogDet
from src.invertible.layers.residual import FixedPointWarning, ResidualBlock, fixed_point
from src.invertible.layers.spectral_norm import SpectralNormalised
from tests.invertible.layers import test_oracles
from tests.invertible.table import LAYERS, build
from tests.invertible.table.residual import STOCHASTIC, convolutions, dense

pytestmark = pytest.mark.filterwarnings(f"error::{FixedPointWarning.__module__}.{FixedPointWarning.__name__}")


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, case in STOCHASTIC.items():  # random: the Jacobian is that of their mean only, so not in the table
        monkeypatch.setitem(LAYERS, name, case)


@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_random_logdets_are_the_same_draws_under_every_policy(name: str, policy: str) -> None:
    layer, x = build(name)
    layer = Sequential(layer, copy.deepcopy(layer))  # two leaves: each must repeat its own draws
    found = {}
    for each in ("stored", policy):
        torch.manual_seed(5)
        found[each] = test_oracles.gradients(layer, "forward_and_logdet", each, x)
    for key, value in found["stored"].items():
        assert (found[policy][key] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1.0), key


def test_inverse_gradients_are_those_of_the_inverted_jacobian() -> None:
    layer, y = build("residual-1d")
    x = layer.inverse(y).detach()
    of_forward = torch.autograd.functional.jacobian(layer, x).reshape(y.numel(), y.numel())
    of_inverse = torch.autograd.functional.jacobian(layer.inverse, y).reshape(y.numel(), y.numel())
    torch.testing.assert_close(of_inverse @ of_forward, torch.eye(y.numel(), dtype=y.dtype), rtol=0, atol=1e-12)


def test_inverse_gradients_of_parameters_are_finite_differences() -> None:
    layer, y = build("residual-vector")
    parameters = list(layer.parameters())
    direction = [torch.randn_like(p) for p in parameters]
    gradient = torch.autograd.grad((layer.inverse(y) ** 3).sum(), parameters)
    slope = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))

    def moved(step: float) -> Tensor:
        other = copy.deepcopy(layer)
        _iterate_to_machine_precision(other)
        with torch.no_grad():
            for p, d in zip(other.parameters(), direction, strict=True):
                p.add_(step * d)
        return (other.inverse(y) ** 3).sum()

    numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-6)


def _iterate_to_machine_precision(net: nn.Module) -> None:
    """The gradient of σ holds the singular vectors fixed, which is right where σ is stationary in them."""
    for module in net.modules():
        if isinstance(module, SpectralNormalised):
            module.tolerance = 1e-15


def test_inversion_reports_its_convergence() -> None:
    layer, x = build("residual-2d")
    assert isinstance(layer, ResidualBlock)
    y = layer(x).detach()
    found, report = layer.inverse_with_report(y)
    assert report.converged and 1 < report.iterations < 400 and report.change <= report.accepted
    assert layer.last_inversion is None
    torch.testing.assert_close(layer.inverse(y), found, rtol=0, atol=0)
    assert layer.last_inversion == report


def test_contraction_at_the_rate_of_the_coefficient() -> None:
    """``g(x) = −c x`` is the slowest: each iteration gains exactly the factor c."""
    block = ResidualBlock(2, _minus_identity, coefficient=0.8, tolerance=1e-6).double()
    y = torch.ones(1, 2, dtype=torch.float64)
    x, report = block.inverse_with_report(y)
    torch.testing.assert_close(x, y / 0.2, rtol=1e-4, atol=0)
    assert report.iterations == math.ceil(math.log(1e-6 / 0.2) / math.log(0.8))


def _minus_identity(dims_in: int, dims_out: int) -> nn.Module:
    layer = nn.Linear(dims_in, dims_out, bias=False)
    with torch.no_grad():
        layer.weight.copy_(-3 * torch.eye(dims_in))
    return layer


def test_an_inversion_that_does_not_converge_warns() -> None:
    block = ResidualBlock(2, _minus_identity, coefficient=0.9, max_iterations=7)
    with pytest.warns(FixedPointWarning, match="did not converge for 1 of 1 samples: after 7 iterations"):
        block.inverse(torch.ones(1, 2))
    assert block.last_inversion is not None and not block.last_inversion.converged


def test_a_diverging_iteration_ends_at_once() -> None:
    with pytest.warns(FixedPointWarning, match="after 2 iterations"):
        fixed_point(lambda x: x * 1e30, torch.ones(1), tolerance=1e-6, max_iterations=100)
    with pytest.warns(FixedPointWarning, match="after 4 iterations"):
        fixed_point(lambda x: -2 * x, torch.ones(1), tolerance=1e-6, max_iterations=100)


def test_an_iteration_that_stalls_at_its_rounding_errors_ends_there() -> None:
    """``x ← cos(x)`` with coarse cosines and noise, which never stands still."""
    torch.manual_seed(0)

    def step(x: Tensor) -> Tensor:
        return torch.round(torch.cos(x) * 64) / 64 + 0.01 * torch.rand_like(x)

    x, report = fixed_point(step, torch.zeros(5), tolerance=1e-6, max_iterations=1000, rounding=0.05)
    assert report.converged and report.iterations < 40 and 1e-6 < report.change <= 0.05
    assert (x - 0.739).abs().max() < 0.05


@pytest.mark.parametrize("other", [1e6, 1e-6, 0.0, float("nan"), float("inf")])
def test_a_sample_is_inverted_as_if_it_were_alone(other: float) -> None:
    """Whatever lies beside it in the batch: forward, inverse and the gradient of the inverse."""
    torch.manual_seed(0)
    block = ResidualBlock(5, dense, coefficient=0.97)
    y = torch.randn(3, 5)
    y[1] = other
    results = []
    for batch in (y, y[[0, 2]]):
        batch = batch.clone().requires_grad_()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = block.inverse(batch)
            told = [str(warning.message) for warning in caught]
            (gradient,) = torch.autograd.grad((x[0] ** 2).sum() + (x[-1] ** 2).sum(), batch)
        results.append((x[[0, -1]].detach(), gradient[[0, -1]], told))
    for found, expected in zip(results[0][:2], results[1][:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert len(results[0][2]) == (not math.isfinite(other)) and not results[1][2]
    if not math.isfinite(other):
        assert "for 1 of 3 samples" in results[0][2][0]


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25, 1e30])
def test_samples_of_any_size_converge(size: float) -> None:
    """Also where their squares overflow."""
    torch.manual_seed(0)
    block = ResidualBlock(
        5, lambda a, b: nn.Sequential(nn.Linear(a, 7, bias=False), nn.ELU(), nn.Linear(7, b, bias=False))
    )
    y = size * torch.randn(3, 5)
    torch.testing.assert_close(block(block.inverse(y)), y, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("logdet", ["exact", "truncated", "roulette"])
def test_batches_without_samples(logdet: str) -> None:
    block, x = ResidualBlock(5, dense, logdet=logdet), torch.zeros(0, 5, requires_grad=True)
    y, logdets = block.forward_and_logdet(x)
    assert y.shape == block.inverse(y).shape == (0, 5) and logdets.shape == (0,)
    (y.sum() + logdets.sum()).backward()
    assert x.grad is not None and x.grad.shape == (0, 5)


def test_a_batch_of_no_samples_converges() -> None:
    x, report = fixed_point(lambda x: x / 2, torch.zeros(0, 3), tolerance=1e-6, max_iterations=5)
    assert x.shape == (0, 3) and report.converged


def test_the_fixed_point_zero_converges() -> None:
    x, report = fixed_point(lambda x: 0 * x, torch.zeros(2), tolerance=1e-6, max_iterations=5)
    assert report.converged and report.iterations == 1 and not x.any()


def test_a_looser_tolerance_takes_fewer_iterations() -> None:
    layer, x = build("residual-2d")
    assert isinstance(layer, ResidualBlock)
    y = layer(x).detach()
    _, tight = layer.inverse_with_report(y)
    layer.tolerance = 1e-4
    found, loose = layer.inverse_with_report(y)
    assert loose.iterations < tight.iterations / 2
    assert (found - x).abs().max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_float32_inverts_to_its_rounding_error(seed: int) -> None:
    torch.manual_seed(seed)
    block = ResidualBlock(8, convolutions(2), coefficient=0.97)
    _enlarge(block)
    x = 3 * torch.randn(4, 8, 16, 16)
    x_found = block.inverse(block(x).detach())
    assert (x_found - x).abs().max() < 1e-4


def _enlarge(block: nn.Module) -> None:
    """Large weights, so that the normalisation is active."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(5)


@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
def test_bfloat16_subnets_under_autocast_and_a_float32_stream(policy: str) -> None:
    torch.manual_seed(0)
    flow = Sequential(*(ResidualBlock(2, convolutions(2)) for _ in range(2)))
    x = torch.randn(2, 2, 6, 6)

    def step(policy: str) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return test_oracles.gradients(flow, "forward_and_logdet", policy, x)

    expected, found = step("stored"), step(policy)
    assert found["y"].dtype == torch.float32
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 0.02 * value.abs().max(), key
    with torch.autocast("cpu", torch.bfloat16):
        x_found = flow.inverse(flow(x))
    assert (x_found - x).abs().max() < 0.02


def test_a_trained_chain_under_reversible_equals_stored() -> None:
    """Ten optimiser steps on the exact likelihood: weights, vectors and losses stay together."""
    losses = {}
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        flow = Sequential(*(ResidualBlock(3, dense) for _ in range(3))).double()
        _enlarge(flow)
        set_backprop(flow, policy)
        optimiser = torch.optim.Adam(flow.parameters(), lr=0.05)
        data = torch.randn(32, 3, dtype=torch.float64) * torch.tensor([0.2, 1.0, 2.0], dtype=torch.float64)
        losses[policy] = []
        for _ in range(10):
            z, logdet = flow.forward_and_logdet(data)
            loss = (0.5 * z.square().sum(1) - logdet).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[policy].append(loss.item())
    assert losses["stored"][-1] < losses["stored"][0]
    assert losses["reversible"] == pytest.approx(losses["stored"], abs=1e-9)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("logdet", ["exact", "truncated", "roulette"])
def test_logdet_without_gradients(mode: type, logdet: str) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(3, dense, logdet=logdet)
    x = torch.randn(2, 3)
    torch.manual_seed(1)
    expected = block.forward_and_logdet(x)[1]
    with mode():
        torch.manual_seed(1)
        y, found = block.forward_and_logdet(x.clone())
        x_found = block.inverse(y)
    assert not found.requires_grad and not y.requires_grad
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(x_found, x)


def _curved_block() -> tuple[ResidualBlock, Tensor]:
    """A block with a log-determinant well away from zero, and one sample."""
    torch.manual_seed(0)

    def subnet(dims_in: int, dims_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(dims_in, dims_out), LipSwish(), _minus_identity(dims_out, dims_out))

    block = ResidualBlock(4, subnet, coefficient=0.9).double()
    with torch.no_grad():
        block.subnet[0].layer.weight.copy_(2 * torch.eye(4) + 0.5 * torch.randn(4, 4))
    return block, torch.randn(1, 4, dtype=torch.float64)


def draws(estimator: LogDetEstimator, calls: int) -> tuple[Tensor, Tensor]:
    """Means of a block's log-determinant over copies of one sample, one mean per call, and the exact value."""
    block, x = _curved_block()
    with torch.no_grad():
        exact = block.forward_and_logdet(x)[1]
        block.logdet = estimator
        copies = x.expand(64, -1)
        return torch.stack([block.forward_and_logdet(copies)[1].mean() for _ in range(calls)]), exact


@pytest.mark.parametrize(
    "estimator", [RussianRouletteLogDet(), RussianRouletteLogDet(0, 0.2), RussianRouletteLogDet(5, 0.5)], ids=repr
)
def test_russian_roulette_is_unbiased(estimator: LogDetEstimator) -> None:
    found, exact = draws(estimator, 500)
    standard_error = found.std() / math.sqrt(len(found))
    assert standard_error < 0.05 * exact.abs()  # or the next line could not fail
    assert (found.mean() - exact).abs() < 4 * standard_error


def test_the_truncated_series_is_unbiased_up_to_its_bias() -> None:
    found, exact = draws(TruncatedLogDet(40), 50)
    standard_error = found.std() / math.sqrt(len(found))
    assert standard_error < 0.05 * exact.abs()
    assert (found.mean() - exact).abs() < 4 * standard_error


@pytest.mark.parametrize("num_terms", [1, 2, 5, 20])
def test_the_truncated_series_converges_to_the_exact_value(num_terms: int) -> None:
    """In one dimension the trace estimate is exact: what remains is the rest of the logarithm's series."""
    block = ResidualBlock(1, _minus_identity, coefficient=0.5, logdet=TruncatedLogDet(num_terms)).double()
    _, logdet = block.forward_and_logdet(torch.ones(2, 1, dtype=torch.float64))
    series = -sum(0.5**k / k for k in range(1, num_terms + 1))
    torch.testing.assert_close(logdet, torch.full_like(logdet, series), rtol=1e-9, atol=0)
    assert (logdet - math.log(0.5)).abs().max() < 0.5 ** (num_terms + 1) / ((num_terms + 1) * 0.5)


@pytest.mark.parametrize("estimator", [TruncatedLogDet(30), RussianRouletteLogDet(4, 0.4)], ids=repr)
def test_gradients_of_estimates_are_unbiased(estimator: LogDetEstimator) -> None:
    block, x = _curved_block()

    def gradient(copies: int) -> Tensor:
        _, logdet = block.forward_and_logdet(x.expand(copies, -1))
        grads = torch.autograd.grad(logdet.mean(), list(block.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None])  # the last layer's bias has none

    exact = gradient(1)
    block.logdet = estimator
    found = torch.stack([gradient(64) for _ in range(100)])
    standard_errors = found.std(0) / math.sqrt(len(found))
    assert standard_errors.max() < 0.1 * exact.abs().max()
    # For some thirty entries 5 standard errors, which few seeds in 10⁵ exceed.
    assert ((found.mean(0) - exact).abs() < 5 * standard_errors + 1e-12).all()


def test_exact_logdet_of_the_inverse_is_the_negative() -> None:
    layer, x = build("residual-2d")
    y, logdet = layer.forward_and_logdet(x)
    _, back = Inverse(layer).forward_and_logdet(y)
    torch.testing.assert_close(back, -logdet, rtol=0, atol=1e-12)


def test_certified_lipschitz_constant_bounds_the_jacobian() -> None:
    layer, x = build("residual-2d")
    assert isinstance(layer, ResidualBlock)
    jacobian = torch.autograd.functional.jacobian(lambda part: layer.residual(part), x[:1])
    norm = torch.linalg.matrix_norm(jacobian.reshape(x[0].numel(), -1), ord=2).item()
    bound = layer.certified_lipschitz_constant()
    assert norm <= bound < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coefficient": 1.0}, "expected a coefficient between 0 and 1, got 1.0"),
        ({"coefficient": 0.0}, "expected a coefficient between 0 and 1"),
        ({"tolerance": 0.0}, "expected a positive tolerance"),
        ({"max_iterations": 0}, "expected max_iterations >= 1"),
        ({"logdet": "magic"}, "expected logdet to be one of exact, truncated, roulette, got 'magic'"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualBlock(2, dense, **options)


def test_estimators_refuse_wrong_options() -> None:
    with pytest.raises(ValueError, match="expected num_terms >= 1, got 0"):
        TruncatedLogDet(0)
    with pytest.raises(ValueError, match="expected num_exact_terms >= 0, got -1"):
        RussianRouletteLogDet(-1)
    with pytest.raises(ValueError, match="expected a stop_probability between 0 and 1, got 1"):
        RussianRouletteLogDet(stop_probability=1)


def test_subnets_that_are_no_contraction_or_change_the_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a contraction, got a subnet with Lipschitz constant 1"):
        ResidualBlock(2, lambda _in, _out: nn.Tanh())
    with pytest.raises(ValueError, match=r"keeps the shape \(1, 2, 4\), got \(1, 2, 2\)"):
        ResidualBlock(2, lambda dims_in, dims_out: nn.Conv1d(dims_in, dims_out, 3))(torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="expected 2 channels, got 3"):
        ResidualBlock(2, dense)(torch.zeros(1, 3))


def test_estimator_instances_and_names_build_the_same() -> None:
    assert isinstance(ResidualBlock(2, dense).logdet, ExactLogDet)
    assert repr(ResidualBlock(2, dense, logdet="truncated").logdet) == repr(TruncatedLogDet())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "RussianRouletteLogDet(num_exact_terms=2" in repr(ResidualBlock(2, dense, logdet="roulette"))
