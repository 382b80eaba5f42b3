"""Filtered backprojection for parallel-beam scans about an arbitrary axis, in torch on CPU or GPU.

Source: A.C. Kak, M. Slaney: Principles of Computerized Tomographic Imaging (1988), chapter 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..invertible.arguments import check_choice, check_positive
from .geometry import DETECTOR_HALF_WIDTH, Array, ParallelBeam, grid_centres

# Windows W(f) on the ramp, for frequencies f in cycles per pixel, |f| <= 1/2.
WINDOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "ramp": torch.ones_like,
    "shepp-logan": torch.sinc,
    "cosine": lambda f: torch.cos(torch.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(2 * torch.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(2 * torch.pi * f),
}
NO_FILTER = "none"
FILTERS = (*WINDOWS, NO_FILTER)
"""The windows of the ramp filter, for `filter_views`.

Example:
    >>> FILTERS
    ('ramp', 'shepp-logan', 'cosine', 'hamming', 'hann', 'none')
"""

# Bounds the memory of one slab's interpolation coordinates and samples.
MAX_VOXELS_PER_SLAB = 2**22


def filter_views(sinogram: Tensor, pixel_size: float, filter_name: str = "ramp") -> Tensor:
    """Filter every detector row with the band-limited ramp h times a window; `none` returns the rows unchanged.

    h(0) = 1/4, h(j) = −1/(π j)² for odd j, 0 for even j, in units of 1/pixel_size². The kernel is sampled in
    space, since sampling |f| would set the DC term to zero and shift all values of the reconstruction.

    Args:
        sinogram: (..., s).
        pixel_size: detector pitch along s.
        filter_name: one of `FILTERS`.

    Returns:
        The filtered rows (..., s).

    Raises:
        ValueError: unknown filter.

    Example:
        >>> filter_views(torch.ones(4, 8, 16), pixel_size=0.1, filter_name="hann").shape
        torch.Size([4, 8, 16])
    """
    check_choice("filter", filter_name, FILTERS)
    if filter_name == NO_FILTER:
        return sinogram
    num_pixels = sinogram.shape[-1]
    length = 2 ** (2 * num_pixels - 1).bit_length()  # room for a linear convolution
    lag = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    kernel = torch.where(lag % 2 == 1, -1 / (torch.pi * lag) ** 2, 0)
    kernel[0] = 0.25
    response = torch.fft.rfft(kernel).real * WINDOWS[filter_name](torch.fft.rfftfreq(length, dtype=torch.float64))
    response = (response / pixel_size).to(sinogram)
    return torch.fft.irfft(torch.fft.rfft(sinogram, length) * response, length)[..., :num_pixels]


def backproject(views: Tensor, geometry: ParallelBeam, z: Array, y: Array, x: Array) -> Tensor:
    """Return (π/V) Σ_φ views_φ(t = p·axis, s = p·e(φ)) at all points p = (x, y, z) of a grid, bilinearly.

    Args:
        views: (V, t, s), or (V, C, t, s) with C images to each view; taken as zero outside the detector.
        z, y, x: coordinates of the grid's planes, in half-widths of the cube.
        geometry: axis, views and detector.

    Returns:
        (len(z), len(y), len(x)), or (C, len(z), len(y), len(x)).

    Example:
        >>> geometry = ParallelBeam(np.array(CUBE_DIAGONAL), num_views=4, detector_size=8)
        >>> grid = np.linspace(-0.5, 0.5, 4)
        >>> backproject(torch.ones(4, 8, 8), geometry, z=grid, y=grid, x=grid).mean()  # π
        tensor(3.1416)
    """
    if views.ndim == 3:
        return backproject(views[:, None], geometry, z, y, x)[0]
    z_planes, y_planes, x_planes = (torch.from_numpy(planes).to(views) / DETECTOR_HALF_WIDTH for planes in (z, y, x))
    volumes = views.new_zeros(views.shape[1], len(z), len(y), len(x))
    slab_size = max(1, MAX_VOXELS_PER_SLAB // (len(y) * len(x)))
    for slab, z_slab in zip(volumes.split(slab_size, dim=1), z_planes.split(slab_size), strict=True):
        # (D, H, W, 2): the detector position (s, t) of each voxel, where the detector is [−1, 1]²
        position = views.new_empty(*slab.shape[1:], 2)

        def locate(out: Tensor, direction: Array, z_slab: Tensor = z_slab) -> None:
            along_x, along_y, along_z = direction.tolist()
            plane = along_z * z_slab[:, None] + along_y * y_planes
            torch.add(plane[:, :, None], x_planes, alpha=along_x, out=out)

        locate(position[..., 1], geometry.axis)
        for view, direction in zip(views, geometry.detector_directions, strict=True):
            locate(position[..., 0], direction)
            samples = functional.grid_sample(view[None], position.flatten(1, 2)[None], align_corners=False)
            slab += samples.view_as(slab)
    return volumes.mul_(torch.pi / geometry.num_views)


def filtered_backprojection(sinogram: Tensor, geometry: ParallelBeam, size: int, filter_name: str = "ramp") -> Tensor:
    """Reconstruct the cube [−1, 1]³ from its projections.

    Args:
        sinogram: line integrals (views, t, s), in half-widths of the cube times attenuation.
        size: N, voxels per side of the reconstruction.
        filter_name: one of FILTERS.
        geometry: axis, views and detector.

    Returns:
        Attenuation (N, N, N) as (z, y, x), with the device and type of the sinogram.

    Raises:
        ValueError: unknown filter, a size less than 1, or a sinogram that does not fit the geometry.

    Example:
        >>> geometry = ParallelBeam(np.array(CUBE_DIAGONAL), num_views=4, detector_size=16)
        >>> filtered_backprojection(torch.rand(4, 16, 16), geometry, size=8).shape
        torch.Size([8, 8, 8])
    """
    expected = (geometry.num_views, geometry.detector_size, geometry.detector_size)
    if tuple(sinogram.shape) != expected:
        raise ValueError(f"expected a sinogram of shape {expected}, got {tuple(sinogram.shape)}")
    check_positive(size=size)
    planes = grid_centres(size)
    views = filter_views(sinogram, geometry.pixel_size, filter_name)
    # The detector coordinates (s, t) of p and −p differ in sign only. So half of the grid, with each view and the view
    # turned by 180°, gives both halves of the volume.
    pairs = torch.stack([views, views.flip(1, 2)], dim=1)
    half, turned = backproject(pairs, geometry, planes[: (size + 1) // 2], planes, planes)
    return torch.cat([half, turned.flip(0, 1, 2)[size % 2 :]])
