"""Image quality per volume, independent of the batch size and the number of processes.

Images and volumes have shape (B, C, *spatial), their qualities (B,). ``data_range`` is that of the true intensities.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio

# gaussian: of sigma 1.5 and 11 voxels a side, as in Wang et al. (2004), around every voxel of the reflected image;
# uniform: 7 voxels a side, inside the image, with the sample covariance: what scikit-image computes by default.
SSIMWindow = Literal["gaussian", "uniform"]
UNIFORM_SIDE = 7
SSIM_SIGMA = 1.5
# The Gaussian is cut at 3.5 sigma, as in scikit-image and torchmetrics: 11 voxels.
SSIM_RADIUS = int(3.5 * SSIM_SIGMA + 0.5)
SSIM_SIDES: dict[SSIMWindow, int] = {"gaussian": 2 * SSIM_RADIUS + 1, "uniform": UNIFORM_SIDE}


def psnr(output: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return ``10 log₁₀(data_range² / MSE)`` in dB of each image; infinite where output and target are equal."""
    dims = tuple(range(1, target.ndim))
    # A number, not a tuple: torchmetrics would clamp both images to a tuple.
    return peak_signal_noise_ratio(output, target, data_range=float(data_range), reduction="none", dim=dims)


def ssim(output: Tensor, target: Tensor, data_range: float, window: SSIMWindow = "gaussian") -> Tensor:
    """Return the structural similarity of each image (Wang et al. 2004, here also in 3D).

    With the Gaussian window the mean is over all voxels, and the images are reflected at their borders. The mean over
    the windows that lie inside, which scikit-image takes, would leave out two thirds of a volume of 32 voxels a side,
    most of it background, and would depend on the size.

    Raises:
        ValueError: if a side is shorter than the window.
    """
    spatial = tuple(target.shape[2:])
    check_ssim_size(spatial, window)
    # Relative to the means of the images, and with the variance of the difference instead of the covariance: squares of
    # an intensity that is large compared with the structure would cancel all digits of the structure.
    dims = tuple(range(2, target.ndim))
    offsets = output.mean(dims, keepdim=True), target.mean(dims, keepdim=True)
    a, b = output - offsets[0], target - offsets[1]
    images = torch.stack((a, b, a**2, b**2, (a - b) ** 2))
    mean_a, mean_b, square_a, square_b, square_difference = _windowed_means(images, window)
    # The sample covariance divides by n − 1.
    n = UNIFORM_SIDE ** len(spatial)
    correction = n / (n - 1) if window == "uniform" else 1.0
    variances = (square_a - mean_a**2).clamp(min=0) + (square_b - mean_b**2).clamp(min=0)
    variances = correction * variances
    variance_of_difference = correction * (square_difference - (mean_a - mean_b) ** 2).clamp(min=0)
    difference = mean_a - mean_b + (offsets[0] - offsets[1])
    mean_squares = (mean_a + offsets[0]) ** 2 + (mean_b + offsets[1]) ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    # 2ab = a² + b² − (a − b)², for the means in the first factor and the deviations from them in the second.
    luminance = 1 - difference**2 / (mean_squares + c1)
    return (luminance * (1 - variance_of_difference / (variances + c2))).flatten(start_dim=1).mean(dim=1)


def check_ssim_size(spatial: Sequence[int], window: SSIMWindow) -> None:
    """Raise ValueError if a side of the images is shorter than the window."""
    if min(spatial) < SSIM_SIDES[window]:
        raise ValueError(
            f"expected at least {SSIM_SIDES[window]} voxels per side for SSIM with ssim_window={window}, "
            f"got {tuple(spatial)}"
        )


def _windowed_means(images: Tensor, kind: SSIMWindow) -> Tensor:
    """Return the means of the windows, for images (5, B, C, *spatial).

    Each axis is a product with a matrix. For volumes of 32^3 this is 30 times as fast as torchmetrics' convolution with
    a window of 11^3 voxels.
    """
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, dtype=images.dtype, device=images.device)
    window = torch.softmax(-(offsets**2) / (2 * SSIM_SIGMA**2), dim=0)
    if kind == "uniform":
        window = images.new_full((UNIFORM_SIDE,), 1 / UNIFORM_SIDE)
    for axis in range(3, images.ndim):
        # Row i of the matrix is the share of position i in the mean of each window.
        ones = torch.eye(images.shape[axis], dtype=images.dtype, device=images.device)
        if kind == "gaussian":
            ones = F.pad(ones, (SSIM_RADIUS, SSIM_RADIUS), mode="reflect")
        matrix = ones.unfold(1, len(window), 1) @ window
        images = (images.movedim(axis, -1) @ matrix).movedim(-1, axis)
    return images


def quality(output: Tensor, target: Tensor, data_range: float | None, ssim_window: SSIMWindow = "gaussian") -> Tensor:
    """Return PSNR and SSIM of each volume as columns, shape (B, 2), in single precision also under autocast.

    A ``data_range`` of None is the difference between the largest and the smallest value of each target.
    """
    with torch.autocast(output.device.type, enabled=False):
        output, target = output.float(), target.float()
        if data_range is None:
            dims = tuple(range(1, target.ndim))
            ranges = target.amax(dims, keepdim=True) - target.amin(dims, keepdim=True)
            ranges = torch.where(ranges > 0, ranges, 1.0)
            # Both qualities are those of the images in units of the range.
            output, target, data_range = output / ranges, target / ranges, 1.0
        return torch.stack([psnr(output, target, data_range), ssim(output, target, data_range, ssim_window)], dim=1)
