"""The centre of rotation of a parallel-beam scan, found from its sinogram."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of the detector: how far from its middle the centre is searched, and up to which half-width an object is expected.
SEARCHED_SHARE, OBJECT_SHARE = 0.25, 0.5
FINE_STEP = 0.1
OUTLIER_PERCENTILES = (0.1, 99.9)
# Of the object's mass: what both halves must see at least. At the ends of the search they share half of the detector.
SEEN_SHARE = 0.4


def find_centre(sinogram: Tensor, angles_rad: np.ndarray) -> float:
    """Return the detector coordinate of the rotation axis in pixels, the first pixel's centre being 0.

    A half-turn is continued by its mirror image about a trial centre. Only about the right one is this the sinogram of
    a whole turn, whose 2D spectrum is small outside of a double wedge.

    Args:
        sinogram: line integrals (views, pixels).
        angles_rad: of the views, (views,).

    Returns:
        The coordinate, in pixels, at most a quarter of the detector from its middle.

    Raises:
        ValueError: if the views do not cover a half-turn in ascending order.

    Source: N.T. Vo et al.: Reliable method for calculating the center of rotation in parallel-beam tomography,
    Optics Express 22 (2014), 19078.

    Example:
        >>> angles = np.linspace(0, np.pi, 64)
        >>> position = (torch.arange(32) - 18)[None] - 5 * torch.from_numpy(np.cos(angles))[:, None]
        >>> round(find_centre((-(position**2) / 4).exp(), angles), 1)  # a blob that turns about 18
        18.0
    """
    half_turn = _without_outliers(_half_turn(sinogram.double(), angles_rad))
    num_pixels = half_turn.shape[1]
    middle = (num_pixels - 1) / 2
    reach = max(2, round(SEARCHED_SHARE * num_pixels))
    mask = _outside_double_wedge(2 * len(half_turn), num_pixels, half_turn.device)

    def best(trials: NDArray[np.float64]) -> float:
        on_detector = trials[(trials > 0) & (trials < num_pixels - 1)]
        return float(min(on_detector, key=lambda centre: _energy(half_turn, centre, mask)))

    trials = middle + np.arange(-reach, reach + 0.5)
    # Where the halves have only air in common, nothing contradicts the mirror image.
    mass = half_turn.mean(0).abs()  # the mean over the views is almost without noise
    coarse = best(trials[[_seen_share(mass, trial) >= SEEN_SHARE for trial in trials]])
    return round(best(coarse + np.arange(-1, 1 + FINE_STEP / 2, FINE_STEP)), 1)


def _half_turn(sinogram: Tensor, angles_rad: np.ndarray) -> Tensor:
    """The views from the first one to half a turn later, without that one."""
    turned = np.abs(np.asarray(angles_rad) - angles_rad[0])
    steps = np.diff(turned)
    if len(turned) < 2 or (steps <= 0).any() or turned[-1] + 1.5 * np.median(steps) < np.pi:
        raise ValueError(
            f"expected views over at least half a turn in ascending order, got {len(turned)} "
            f"from {np.rad2deg(angles_rad[0]):.1f}° to {np.rad2deg(angles_rad[-1]):.1f}°; without them the centre of "
            "rotation has to be given"
        )
    return sinogram[torch.from_numpy(turned < np.pi - 0.5 * np.median(steps)).to(sinogram.device)]


def _without_outliers(sinogram: Tensor) -> Tensor:
    """The sinogram within its own percentiles: single dead pixels outweigh what a wrong centre changes."""
    low, high = np.percentile(sinogram.cpu().numpy(), OUTLIER_PERCENTILES)
    return sinogram.clamp(float(low), float(high))


def _seen_share(mass: Tensor, centre: float) -> float:
    """The share of an object's mass in the pixels whose mirror image is on the detector too; 1 for an empty scan."""
    total = float(mass.sum())
    return float(mass[_is_seen(_mirrored(mass, centre))].sum()) / total if total else 1.0


def _mirrored(values: Tensor, centre: float) -> Tensor:
    """The coordinate of each pixel's mirror image: that of pixel s about the centre is 2 centre − s."""
    return 2 * centre - torch.arange(values.shape[-1], dtype=values.dtype, device=values.device)


def _is_seen(mirrored: Tensor) -> Tensor:
    return (mirrored >= 0) & (mirrored <= len(mirrored) - 1)


def _energy(half_turn: Tensor, centre: float, mask: Tensor) -> float:
    """Mean amplitude outside of the double wedge, of the pixels that both halves see."""
    num_pixels = half_turn.shape[1]
    mirrored = _mirrored(half_turn, centre)
    left = mirrored.floor().clamp(0, num_pixels - 2)
    share = (mirrored - left).clamp(0, 1)
    other = torch.lerp(half_turn[:, left.long()], half_turn[:, left.long() + 1], share)
    # Where the mirror image is off the detector, views half a turn earlier in reverse keep the spectrum comparable.
    other = torch.where(_is_seen(mirrored), other, half_turn.flip(0))
    spectrum = torch.fft.fft2(torch.cat([half_turn, other])).abs()
    return float((spectrum * mask).mean())


def _outside_double_wedge(num_views: int, num_pixels: int, device: torch.device) -> Tensor:
    """1 for frequencies (angle, s) that the sinogram of an object within the detector has not, 0 for the others."""
    along_angle = torch.fft.fftfreq(num_views, 1 / num_views, device=device).abs()[:, None]  # cycles per turn
    along_s = torch.fft.fftfreq(num_pixels, device=device).abs()  # cycles per pixel
    radius = OBJECT_SHARE * num_pixels
    mask = along_angle > 2 * torch.pi * radius * along_s + 2
    mask[:, 0] = False  # the mean along s hides in either half
    return mask.double()
