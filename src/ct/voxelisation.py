"""Antialiased voxelisation of foam phantoms and resizing of volumes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..invertible.arguments import check_positive
from .foam import FoamPhantom
from .geometry import grid_centres

Volume = NDArray[np.float32]

# Lines through balls counted together: few enough for the cache of a CPU, many enough to fill a GPU.
LINES_PER_BATCH = {"cpu": 2**15, "cuda": 2**22}


def downsample(volume: Tensor, factor: int) -> Tensor:
    """Shrink a volume (factor·D, factor·H, factor·W) to (D, H, W), each voxel the mean of the block it covers.

    For factor 2 this is trilinear interpolation at the centres of the coarse voxels.

    Args:
        volume: the fine volume.
        factor: side of a block.

    Raises:
        ValueError: a side of the volume is not a multiple of `factor`.

    Example:
        >>> downsample(torch.rand(8, 8, 8), 2).shape
        torch.Size([4, 4, 4])
    """
    if factor < 1 or any(side % factor for side in volume.shape):
        raise ValueError(f"expected sides divisible by a factor >= 1, got {tuple(volume.shape)} and {factor}")
    return volume if factor == 1 else functional.avg_pool3d(volume[None, None], factor)[0, 0]


def voxelise(phantom: FoamPhantom, size: int, oversampling: int = 4, device: str | torch.device = "cpu") -> Volume:
    """Return the phantom on the grid of the cube [−1, 1]³, each voxel the mean of oversampling³ point samples.

    The balls must lie in the cylinder and not overlap, so that samples of air can be counted ball by ball. Only the
    first and last sample of a line along x in a ball are computed, not those between. The counting runs on `device`.

    Args:
        phantom: what is sampled.
        size: N, voxels per side.
        oversampling: samples per side of a voxel.
        device: where they are counted.

    Returns:
        (size, size, size) as (z, y, x), values in [0, 1].

    Raises:
        ValueError: `size` or `oversampling` is less than 1.

    Example:
        >>> phantom = FoamPhantom(0.8, 0.8, np.array([[0.0, 0.0, 0.2]]), np.array([0.4]))
        >>> voxelise(phantom, size=8).shape
        (8, 8, 8)
    """
    check_positive(size=size, oversampling=oversampling)
    samples = torch.from_numpy(grid_centres(size * oversampling)).to(device)
    # (size, size, size + 2): differences along x of the numbers of samples in air
    steps = samples.new_zeros(size, size, size + 2)
    widths = np.ceil(phantom.radii * len(samples)).astype(int) + 1
    batch_lines = LINES_PER_BATCH["cpu" if samples.device.type == "cpu" else "cuda"]
    for balls in phantom.batches(widths, lambda width: batch_lines // width**2, samples.device):
        _count_air(steps, *balls, samples, oversampling)
    material = _count_cylinder(phantom, samples, oversampling) - steps.cumsum(dim=-1)[..., :size]
    return material.div_(oversampling**3).float().cpu().numpy()


def _count_cylinder(phantom: FoamPhantom, samples: Tensor, oversampling: int) -> Tensor:
    """Return how many of each voxel's samples are in the cylinder: (size, size, size)."""
    size = len(samples) // oversampling
    disc = samples[:, None] ** 2 + samples**2 <= phantom.radius**2
    in_plane = disc.view(size, oversampling, size, oversampling).sum(dim=(1, 3))
    between_caps = (samples.abs() <= phantom.half_height).view(size, oversampling).sum(dim=1)
    return (between_caps[:, None, None] * in_plane).to(samples)


def _count_air(steps: Tensor, centres: Tensor, radii: Tensor, width: int, samples: Tensor, oversampling: int) -> None:
    """Add each voxel's number of samples in these balls, as differences along x.

    With k = oversampling, k − i mod k of the samples i, i + 1, … of a line are in voxel ⌊i/k⌋ and k in each later
    voxel: differences of k − i mod k and i mod k. A ball holds the samples from its first one, less those after its
    last one.

    Args:
        steps: (size, size, size + 2), changed in place.
        centres, radii: of n balls, (n, 3) as (x, y, z) and (n,).
        width: samples along a side of the largest box around a ball.
    """
    num_samples, size = len(samples), len(steps)
    x, y, z, radius = (*centres.T[:, :, None], radii[:, None])  # (n, 1) each

    def position(coordinate: Tensor) -> Tensor:
        """Return where a coordinate is among the samples, 0 at the first."""
        return (coordinate + 1) * (num_samples / 2) - 0.5

    def box(centre: Tensor) -> tuple[Tensor, Tensor]:
        """Return the voxels (n, w) of a box's samples along one direction and the squared distances of these."""
        index = position(centre - radius).ceil_().long() + torch.arange(width, device=samples.device)
        outside = (index < 0) | (index >= num_samples)
        index.clamp_(0, num_samples - 1)
        return index // oversampling, (samples[index] - centre).square_().masked_fill_(outside, torch.inf)

    z_voxels, z_squared = box(z)
    y_voxels, y_squared = box(y)
    squared = (radius**2 - z_squared)[:, :, None] - y_squared[:, None]  # (n, w, w), of half of a line's chord
    missed = squared < 0
    reach = squared.clamp_(min=0).sqrt_().mul_(num_samples / 2)
    middle = position(x)[:, :, None]
    begin = (middle - reach).ceil_()
    end = torch.where(missed, begin, (middle + reach).floor_().add_(1))
    lines = ((z_voxels * size)[:, :, None] + y_voxels[:, None]) * steps.shape[-1]
    flat = steps.view(-1)
    for bound, sign in ((begin, 1), (end, -1)):
        voxel = (bound.clamp_(0, num_samples) / oversampling).floor_()
        phase = bound.sub_(voxel, alpha=oversampling).view(-1)
        index = voxel.long().add_(lines).view(-1)
        flat[1:].index_add_(0, index, phase, alpha=sign)
        flat.index_add_(0, index, oversampling - phase, alpha=sign)
