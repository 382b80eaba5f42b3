"""PSNR and SSIM against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from src.tasks.image_quality import SSIMWindow, psnr, quality, ssim


def volumes(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    noise = torch.randn(shape, generator=generator) * torch.tensor([0.05, 0.3, 1.0]).view(3, *[1] * (len(shape) - 1))
    return target + noise, target


@pytest.mark.parametrize("shape", [(3, 1, 14, 16, 18), (3, 2, 20, 24)])
@pytest.mark.parametrize("data_range", [1.0, 2.5])
def test_psnr_is_that_of_scikit_image(shape: tuple[int, ...], data_range: float) -> None:
    output, target = (v.double() for v in volumes(*shape))
    expected = [
        peak_signal_noise_ratio(t.numpy(), o.numpy(), data_range=data_range)
        for o, t in zip(output, target, strict=True)
    ]
    # torchmetrics divides by the single-precision logarithm of ten.
    np.testing.assert_allclose(psnr(output, target, data_range), expected, rtol=1e-7)


def scikit_images_ssim(output: torch.Tensor, target: torch.Tensor, data_range: float) -> list[float]:
    # scikit-image averages over the windows inside: on reflected images, these are the windows of all voxels.
    pairs = [
        [np.pad(volume.double().numpy(), 5, mode="reflect") for volume in pair]
        for pair in zip(target[:, 0], output[:, 0], strict=True)
    ]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": data_range}
    return [structural_similarity(t, o, **options) for t, o in pairs]


@pytest.mark.parametrize("shape", [(3, 1, 14, 16, 18), (3, 1, 20, 24)])
@pytest.mark.parametrize("data_range", [1.0, 2.5])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...], data_range: float) -> None:
    output, target = (v.double() for v in volumes(*shape))
    expected = scikit_images_ssim(output, target, data_range)
    np.testing.assert_allclose(ssim(output, target, data_range), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(3, 1, 14, 16, 18), (3, 1, 20, 24)])
@pytest.mark.parametrize("bias", [0.0, 0.1, 1e4])
@pytest.mark.parametrize("offset", [-1e4, -1024.0, 30.0, 1e4])
def test_ssim_in_single_precision_keeps_its_digits_at_large_offsets(
    shape: tuple[int, ...], bias: float, offset: float
) -> None:
    output, target = volumes(*shape)
    output, target = output + offset + bias, target + offset
    # scikit-image in double precision, with the same rounded intensities
    np.testing.assert_allclose(ssim(output, target, 1.0), scikit_images_ssim(output, target, 1.0), atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_ssim_is_one_only_where_images_agree_and_never_above(offset: float) -> None:
    output, target = (volume + offset for volume in volumes(3, 1, 12, 12, 12))
    assert torch.equal(ssim(target, target, 1.0), torch.ones(3))
    assert (ssim(output, target, 1.0) < 1).all()
    constant = torch.full_like(target, offset)
    assert torch.equal(ssim(constant, constant, 1.0), torch.ones(3))


def test_a_batch_is_not_pooled() -> None:
    output, target = volumes(3, 1, 12, 12, 12)
    alone = torch.cat([quality(o[None], t[None], 1.0) for o, t in zip(output, target, strict=True)])
    torch.testing.assert_close(quality(output, target, 1.0), alone, rtol=1e-6, atol=1e-6)


def test_a_perfect_output() -> None:
    _, target = volumes(3, 1, 12, 12, 12)
    assert torch.isposinf(psnr(target, target, 1.0)).all()
    torch.testing.assert_close(ssim(target, target, 1.0), torch.ones(3))


def test_autocast_does_not_coarsen_the_numbers() -> None:
    output, target = volumes(3, 1, 12, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = quality(output, target, 1.0)
    assert torch.equal(under_autocast, quality(output, target, 1.0))


@pytest.mark.parametrize(("window", "side"), [("gaussian", 11), ("uniform", 7)])
def test_a_volume_smaller_than_the_window_is_refused(window: SSIMWindow, side: int) -> None:
    small, fits = torch.zeros(1, 1, side - 1, 16, 16), torch.zeros(1, 1, side, 16, 16)
    with pytest.raises(ValueError, match=f"at least {side} voxels per side for SSIM with ssim_window={window}, got"):
        ssim(small, small, 1.0, window)
    assert ssim(fits, fits, 1.0, window) == 1


@pytest.mark.parametrize("shape", [(3, 1, 14, 16, 18), (3, 1, 20, 24), (3, 1, 7, 9)])
@pytest.mark.parametrize("offset", [0.0, -30.0])
def test_the_uniform_window_and_the_truths_own_range_are_those_of_scikit_image(
    shape: tuple[int, ...], offset: float
) -> None:
    output, target = (volume * 3 + offset for volume in volumes(*shape))
    found = quality(output, target, None, "uniform")
    for row, o, t in zip(found, output[:, 0].double().numpy(), target[:, 0].double().numpy(), strict=True):
        data_range = t.max() - t.min()
        expected = [
            peak_signal_noise_ratio(t, o, data_range=data_range),
            structural_similarity(t, o, data_range=data_range),
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-5)


def test_a_constant_truth_has_no_range_and_is_judged_by_its_values() -> None:
    target = torch.ones(2, 1, 12, 12)
    assert torch.equal(quality(target + 0.5, target, None), quality(target + 0.5, target, 1.0))
