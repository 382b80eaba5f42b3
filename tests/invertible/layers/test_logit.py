"""Logit and fixed affine maps, where the table of layers does not reach."""

from __future__ import annotations

import math

import pytest
import torch

from src.invertible import Inverse
from src.invertible.layers.logit import FixedAffine, Logit


def test_logit_and_sigmoid() -> None:
    x = torch.tensor([[1e-300, 1e-5, 0.3, 0.9999]], dtype=torch.float64)
    y, logdet = Logit().forward_and_logdet(x)
    torch.testing.assert_close(y, torch.logit(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(logdet, -(x * (1 - x)).log().sum(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(Inverse(Logit())(y), x, rtol=1e-12, atol=0)


def test_the_log_determinant_of_the_sigmoid_is_exact_where_it_rounds_to_one() -> None:
    y = torch.tensor([[40.0], [-40.0], [1000.0]])
    x, logdet = Inverse(Logit()).forward_and_logdet(y)
    assert torch.equal(x, torch.tensor([[1.0], [torch.exp(torch.tensor(-40.0))], [1.0]]))
    torch.testing.assert_close(logdet, torch.tensor([-40.0, -40.0, -1000.0]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_an_image_of_integers_has_the_log_determinant_of_real_numbers(dtype: torch.dtype) -> None:
    x = torch.full((2, 1, 8, 8), 7, dtype=dtype)
    for scale in (1 / 256, 2):
        y, logdet = FixedAffine(scale).forward_and_logdet(x)
        assert torch.equal(y, x * float(scale))
        torch.testing.assert_close(logdet, torch.full((2,), 64 * math.log(scale)))


def test_log_determinants_of_large_images_in_half_precision_are_finite() -> None:
    x = torch.full((1, 16, 64, 64), 0.5, dtype=torch.float16)
    for layer in (FixedAffine(1 / 256), Logit(), Inverse(Logit())):
        found, expected = layer.forward_and_logdet(x)[1], layer.forward_and_logdet(x.double())[1]
        torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=0)


def test_a_scale_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a scale other than zero, got 0"):
        FixedAffine(0.0)
