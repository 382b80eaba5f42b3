"""Invertible poolings against torch's own pooling, and beside the learned downsampling."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from src.invertible import Downsampling
from src.invertible.layers.pooling import BlockDownsampling, Checkerboard, IAvgPool, INearestPool

POOLINGS = [Checkerboard, IAvgPool, INearestPool]
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
STRIDES = [(2,), (3,), (2, 2), (1, 3), (2, 2, 2), (3, 1, 2)]


def state(stride: tuple[int, ...], channels: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, *(2 * s for s in stride), dtype=torch.float64)


@pytest.mark.parametrize("stride", STRIDES)
def test_checkerboard_is_the_pixel_shuffle(stride: tuple[int, ...]) -> None:
    x, d = state(stride), len(stride)
    y = Checkerboard(stride, spatial_dims=d)(x)
    learned = Downsampling(3, stride, spatial_dims=d, init="pixel_shuffle").double()
    torch.testing.assert_close(y, learned(x), rtol=0, atol=1e-12)
    if stride == (2, 2):
        assert torch.equal(y, functional.pixel_unshuffle(x, 2))


@pytest.mark.parametrize("stride", STRIDES)
def test_average_pooling_is_torchs_and_the_rest_are_differences_from_it(stride: tuple[int, ...]) -> None:
    x, d = state(stride), len(stride)
    y = IAvgPool(stride, spatial_dims=d)(x).unflatten(1, (3, -1))
    average = AVERAGE[d](x, stride)
    torch.testing.assert_close(y[:, :, 0], average, rtol=0, atol=1e-14)
    voxels = Checkerboard(stride, spatial_dims=d)(x).unflatten(1, (3, -1))
    torch.testing.assert_close(y[:, :, 1:], voxels[:, :, 1:] - average[:, :, None], rtol=0, atol=1e-14)


@pytest.mark.parametrize("stride", STRIDES)
def test_nearest_pooling_keeps_the_first_voxel_of_each_block(stride: tuple[int, ...]) -> None:
    x = state(stride)
    y = INearestPool(stride, spatial_dims=len(stride))(x).unflatten(1, (3, -1))
    assert torch.equal(y[:, :, 0], x[(..., *(slice(None, None, s) for s in stride))])


@pytest.mark.parametrize("pooling", [IAvgPool, INearestPool])
def test_a_constant_image_has_no_differences(pooling: type[BlockDownsampling]) -> None:
    y = pooling(spatial_dims=2)(torch.full((1, 1, 4, 4), 5.0))
    assert (y[:, 0] == 5).all()
    assert (y[:, 1:] == 0).all()


def test_the_log_determinant_of_a_large_image_in_half_precision_is_finite() -> None:
    y, logdet = IAvgPool(2, spatial_dims=1).forward_and_logdet(torch.ones(1, 1, 2**18, dtype=torch.float16))
    assert y.dtype == torch.float16
    torch.testing.assert_close(logdet, torch.tensor([-(2**17) * math.log(2)]))


@pytest.mark.parametrize("pooling", [IAvgPool, INearestPool])
def test_differences_of_integers_are_refused(pooling: type[BlockDownsampling]) -> None:
    layer, image = pooling(2, spatial_dims=1), torch.tensor([[[200, 100]]], dtype=torch.uint8)
    for call in (lambda: layer(image), lambda: layer.inverse(image.reshape(1, 2, 1))):
        with pytest.raises(ValueError, match=r"expected a state of real numbers, got torch\.uint8"):
            call()
    assert Checkerboard(2, spatial_dims=1)(image).flatten().tolist() == [200, 100]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_that_do_not_fit_are_refused(pooling: type[BlockDownsampling]) -> None:
    layer = pooling(spatial_dims=2)
    with pytest.raises(ValueError, match=r"divisible by the stride \(2, 2\), got \(4, 5\)"):
        layer(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"divisible by the stride \(2, 2\), got \(4,\)"):
        layer(torch.zeros(1, 1, 4))
    for shape in [(1, 6, 2, 2), (1, 4, 2)]:
        with pytest.raises(ValueError, match="2 spatial sizes and channels divisible by 4"):
            layer.inverse(torch.zeros(shape))
    with pytest.raises(ValueError, match="spatial_dims to be 1, 2 or 3, got 0"):
        pooling(spatial_dims=0)
    with pytest.raises(ValueError, match="stride to be 2 positive integers"):
        pooling((2, 2, 2), spatial_dims=2)
