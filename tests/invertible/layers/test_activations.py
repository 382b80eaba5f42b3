"""Activations against their textbook formulas, over the whole range of floating-point numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from src.invertible.layers.activations import InvertibleLeakyReLU, SneakyReLU

SLOPES = [1.0, 0.5, 0.1, 0.01, 1e-3]


def wide_range(largest_exponent: float) -> Tensor:
    """Float32 numbers of both signs and all magnitudes, and zero."""
    size = 10 ** torch.linspace(-largest_exponent, largest_exponent, 2001, dtype=torch.float64)
    return torch.cat((-size, size.new_zeros(1), size)).float()


@pytest.mark.parametrize("slope", SLOPES)
def test_sneaky_relu_is_its_formula(slope: float) -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64, requires_grad=True)
    alpha = (1 - slope) / (1 + slope)
    expected = (x + alpha * (torch.sqrt(1 + x**2) - 1)) / (1 + alpha)
    layer = SneakyReLU(slope)
    expected_log = torch.log((1 + alpha * x / torch.sqrt(1 + x**2)) / (1 + alpha))
    for found, wanted in [(layer(x), expected), (layer.log_derivative(x), expected_log)]:
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        gradients = [torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in (found, wanted)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    (derivative,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(layer.log_derivative(x), derivative.log(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("slope", SLOPES)
def test_sneaky_relu_keeps_every_digit_in_float32(slope: float) -> None:
    layer, x = SneakyReLU(slope), wide_range(30)
    y = layer(x)
    # Within a few rounding errors: no cancellation for large or small numbers, no overflow of squares.
    torch.testing.assert_close(y.double(), layer(x.double()), rtol=1e-6, atol=0)
    # The condition number of the inverse: what the rounding of y alone costs.
    condition = (y / x).nan_to_num(nan=1.0).double().abs() / layer.log_derivative(x.double()).exp()
    error = (layer.inverse(y).double() - x.double()).abs()
    assert (error <= 4 * torch.finfo(torch.float32).eps * (1 + condition) * x.double().abs()).all()
    assert torch.isfinite(layer.log_derivative(x)).all()
    torch.testing.assert_close(layer.log_derivative(x).double(), layer.log_derivative(x.double()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("slope", SLOPES)
def test_gradients_stay_finite_and_positive(slope: float) -> None:
    layer = SneakyReLU(slope)
    x = wide_range(30).requires_grad_()
    y = layer(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad.log(), layer.log_derivative(x), rtol=0, atol=1e-5)
    y = y.detach().requires_grad_()
    (grad,) = torch.autograd.grad(layer.inverse(y).sum(), y)
    torch.testing.assert_close(-grad.log(), layer.log_derivative(x), rtol=0, atol=1e-5)


def test_sneaky_relu_has_the_slopes_of_a_leaky_relu_far_out() -> None:
    x = torch.tensor([-1e8, 1e8], dtype=torch.float64)
    torch.testing.assert_close(SneakyReLU(0.2)(x) / x, torch.tensor([0.2, 1.0], dtype=torch.float64), rtol=1e-7, atol=0)


def test_leaky_relu_and_its_constant_logdet() -> None:
    x = torch.tensor([[-2.0, 3.0, -4.0], [1.0, 2.0, -0.5]], dtype=torch.float64)
    y, logdet = InvertibleLeakyReLU(0.25).forward_and_logdet(x)
    assert y.tolist() == [[-0.5, 3.0, -1.0], [1.0, 2.0, -0.125]]
    torch.testing.assert_close(logdet, math.log(0.25) * torch.tensor([2.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("activation", [SneakyReLU, InvertibleLeakyReLU])
@pytest.mark.parametrize("slope", [0.0, -0.1, 1.5, math.nan])
def test_slopes_without_an_inverse_are_refused(activation: type, slope: float) -> None:
    with pytest.raises(ValueError, match=r"slope in \(0, 1\], got"):
        activation(slope)
