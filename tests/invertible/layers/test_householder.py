"""Reflections that a condition prescribes, at vectors of any length and in any precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.invertible.layers.householder import ConditionalHouseholder

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYER = ConditionalHouseholder(4, num_reflections=2)


def state_and_vectors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 4, 5, dtype=torch.float64).to(dtype), torch.randn(3, 4, 2, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_of_zero_give_the_identity_and_gradients_of_zero(dtype: torch.dtype) -> None:
    x, vectors = state_and_vectors(dtype)
    zeros = torch.zeros_like(vectors, requires_grad=True)
    y = LAYER(x, zeros)
    assert torch.equal(y, x) and torch.equal(LAYER.inverse(x, zeros), x)
    (gradient,) = torch.autograd.grad(y.square().sum(), zeros)
    assert not gradient.any()
    with_one = torch.stack((vectors[:, :, 0], zeros[:, :, 1].detach()), dim=2)
    torch.testing.assert_close(LAYER(x, with_one), ConditionalHouseholder(4, 1)(x, vectors[:, :, :1]))


@pytest.mark.parametrize("length", [1e-30, 1e-13, 1e-6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_length_of_the_vectors_does_not_matter(dtype: torch.dtype, length: float) -> None:
    x, vectors = state_and_vectors(dtype)
    scaled = (length * vectors).requires_grad_()
    y, tolerance = LAYER(x, scaled), 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(y, LAYER(x, vectors), rtol=0, atol=tolerance)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=tolerance, atol=0)
    torch.testing.assert_close(LAYER.inverse(y, scaled), x, rtol=0, atol=tolerance)
    (gradient,) = torch.autograd.grad(y.pow(3).sum(), scaled)
    (expected,) = torch.autograd.grad(LAYER(x, vectors.requires_grad_()).pow(3).sum(), vectors)
    torch.testing.assert_close(length * gradient, expected, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_state_in_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, vectors = state_and_vectors(dtype)
    y = LAYER(x, vectors)
    assert y.dtype == dtype
    torch.testing.assert_close(y, LAYER(x.double(), vectors.double()).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    x, vectors = (part.requires_grad_() for part in state_and_vectors(torch.float64))
    assert torch.autograd.gradcheck(LAYER, (x, vectors))
    assert torch.autograd.gradgradcheck(LAYER, (x, vectors))


def test_another_number_of_reflections_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a condition of shape \(3, 4, 2\), got \(3, 4, 3\)"):
        LAYER(torch.zeros(3, 4), torch.zeros(3, 4, 3))


def test_a_state_of_integers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a state of real numbers, got torch\.int64"):
        LAYER(torch.ones(1, 4, dtype=torch.int64), torch.ones(1, 4, 2))
