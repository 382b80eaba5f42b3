"""Synthetic heads with a glioma, as four MR scans: an ellipsoidal brain without its skull, and nested tumours.

The anatomy is made of level sets: distances to ellipsoids, disturbed by smooth noise. Lengths are in half-axes of the
brain, so that scans of any size show the same head. Intensities follow the contrasts of the modalities: fluid is dark
in T1 and FLAIR and bright in T2; white matter is brighter than grey in T1 and darker in T2; edema is bright in T2 and
FLAIR; tissue with a broken blood-brain barrier is bright in T1 with contrast agent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from src.datamodules.brats.releases import BACKGROUND, ED, ET, MODALITIES, NCR

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Half-axes of the brain as fractions of the scan's sides.
BRAIN_HALF_AXES = (0.42, 0.43, 0.45)
# Voxels mix their neighbours' tissues (partial volume): standard deviation of the blur, in voxels.
PARTIAL_VOLUME = 0.6
# Intensity of white matter in T1, before individual scaling; scans are int16.
WHITE_MATTER_INTENSITY = 600.0

FLUID, GREY, WHITE, EDEMA, NECROSIS, SOLID, ENHANCING = range(7)
# Intensity of each tissue by modality, relative to white matter in T1.
CONTRASTS = {
    #         fluid grey  white edema necrosis solid enhancing
    "t1": (0.28, 0.72, 1.00, 0.62, 0.42, 0.58, 0.66),
    "t1ce": (0.30, 0.76, 1.02, 0.64, 0.40, 0.60, 1.65),
    "t2": (1.55, 0.88, 0.62, 1.22, 1.38, 1.12, 0.98),
    "flair": (0.22, 0.82, 0.66, 1.38, 0.74, 1.18, 1.12),
}


class Tumour(NamedTuple):
    """What kind of glioma: of low or high grade, with or without a part that takes up contrast agent."""

    low_grade: bool
    enhancing: bool


class Phantom(NamedTuple):
    """Four scans, int16 (4, X, Y, Z), in the order of MODALITIES, and the canonical classes, uint8 (X, Y, Z)."""

    images: NDArray[np.int16]
    classes: NDArray[np.uint8]


def make_phantom(rng: np.random.Generator, shape: Sequence[int], tumour: Tumour, noise: float, bias: float) -> Phantom:
    """Draw a head with a tumour and scan it; see `src.datamodules.brats.demo.BratsDemo` for noise and bias."""
    places = _brain_coordinates(rng, shape)
    brain, tissue, depth = _draw_anatomy(rng, places)
    classes = _draw_tumour(rng, places, tissue, depth, tumour)
    for name, kind in ((ED, EDEMA), (NCR, SOLID if tumour.low_grade else NECROSIS), (ET, ENHANCING)):
        tissue[classes == name] = kind
    images = [_scan(rng, tissue, brain, CONTRASTS[name], noise, bias) for name in MODALITIES]
    return Phantom(np.stack(images), classes)


def _brain_coordinates(rng: np.random.Generator, shape: Sequence[int]) -> Field:
    """Return the coordinates of each voxel in half-axes of the brain, (3, X, Y, Z), for a random pose and size."""
    axes = []
    for voxels, fraction in zip(shape, BRAIN_HALF_AXES, strict=True):
        half_axis = fraction * voxels * rng.uniform(0.9, 1.0)
        centre = (voxels - 1) / 2 + rng.uniform(-0.02, 0.02) * voxels
        axes.append((np.arange(voxels) - centre) / half_axis)
    x, y, z = np.meshgrid(*axes, indexing="ij")
    turn = rng.uniform(-0.12, 0.12)
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    return np.stack([x, y, z]).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, shape: Sequence[int], length: float) -> Field:
    """Return noise of mean 0 and deviation 1 with the correlation length ``length``, in half-axes of the brain."""
    sigma = [max(length * fraction * n, 0.5) for n, fraction in zip(shape, BRAIN_HALF_AXES, strict=True)]
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3.0)
    return (noise - noise.mean()) / noise.std()


def _ellipsoid(places: Field, centre: ArrayLike, half_axes: ArrayLike) -> Field:
    """Return the distance to a centre in units of the half-axes: below 1 inside."""
    middle, lengths = (np.asarray(values, np.float32).reshape(3, 1, 1, 1) for values in (centre, half_axes))
    return np.sqrt((((places - middle) / lengths) ** 2).sum(axis=0))


def _draw_anatomy(rng: np.random.Generator, places: Field) -> tuple[Mask, NDArray[np.int8], Field]:
    """Return the brain, the tissue of each voxel, and its depth below the surface."""
    shape = places.shape[1:]
    x, y, z = places
    # Narrower in front, flat below.
    radius = _ellipsoid(np.stack([x * (1 + 0.12 * y), y, np.where(z < 0, z * 1.12, z)]), (0, 0, 0), (1, 1, 1))
    depth = 1 - radius - 0.02 * _smooth_noise(rng, shape, 0.3)
    brain = depth > 0
    folds, ripple = _smooth_noise(rng, shape, 0.1), _smooth_noise(rng, shape, 0.07)
    tissue = np.full(shape, WHITE, np.int8)
    # The cortex follows the surface and the sulci, which are sheets where the noise is near 0.
    tissue[(depth < 0.09 + 0.02 * ripple) | ((np.abs(folds) < 0.45) & (depth < 0.3))] = GREY
    for side in (-1, 1):  # the deep grey matter
        tissue[_ellipsoid(places, (side * 0.28, 0.05, -0.08), (0.13, 0.24, 0.18)) + 0.1 * ripple < 1] = GREY
    fissure = (np.abs(x) < 0.03 + 0.01 * ripple) & (depth < 0.35) & (z > -0.2)
    tissue[fissure | ((np.abs(folds) < 0.13) & (depth < 0.24)) | (depth < 0.03)] = FLUID
    width = rng.uniform(0.85, 1.3)
    for side in (-1, 1):  # the lateral ventricles, bent away from the middle at the back
        bent = np.stack([x - side * (0.13 + 0.16 * np.clip(-y, 0, 1)), y, z])
        tissue[_ellipsoid(bent, (0, 0.0, 0.14), (0.085 * width, 0.46, 0.19 * width)) + 0.08 * ripple < 1] = FLUID
    tissue[_ellipsoid(places, (0, -0.02, -0.1), (0.035 * width, 0.16, 0.16)) < 1] = FLUID  # the third ventricle
    return brain, np.where(brain, tissue, FLUID).astype(np.int8), depth


def _draw_tumour(
    rng: np.random.Generator, places: Field, tissue: NDArray[np.int8], depth: Field, tumour: Tumour
) -> NDArray[np.uint8]:
    """Return the classes: a core, its enhancing part, mostly a rim, and edema around it along white matter."""
    shape = tissue.shape
    possible = np.argwhere((tissue == WHITE) & (depth > 0.3))
    centre = places[(slice(None), *possible[rng.integers(len(possible))])]
    radius = rng.uniform(0.26, 0.44)  # of the core
    lobes, bumps = _smooth_noise(rng, shape, 0.2), _smooth_noise(rng, shape, 0.08)
    core_level = _ellipsoid(places, centre, radius * rng.uniform(0.8, 1.2, 3)) + 0.16 * lobes + 0.06 * bumps
    core = (core_level < 1) & (depth > 0.02)
    spread = rng.uniform(0.15, 0.35) if tumour.low_grade else rng.uniform(0.35, 0.75)
    reach = 1 + spread * np.where(tissue == WHITE, 1.0, 0.45) * (1 + 0.5 * _smooth_noise(rng, shape, 0.15))
    edema = (core_level < reach) & (tissue != FLUID) & (depth > 0.04)
    if not tumour.enhancing:
        enhancing = np.zeros(shape, bool)
    elif tumour.low_grade:  # a nodule
        enhancing = _ellipsoid(places, centre, (radius * 0.5,) * 3) + 0.2 * bumps < 1
    else:  # a rim of uneven thickness
        enhancing = core_level > rng.uniform(0.55, 0.75) + 0.12 * _smooth_noise(rng, shape, 0.12)
    classes = np.full(shape, BACKGROUND, np.uint8)
    classes[edema] = ED
    classes[core] = NCR
    classes[core & enhancing] = ET
    return classes


def _scan(
    rng: np.random.Generator,
    tissue: NDArray[np.int8],
    brain: Mask,
    contrast: Sequence[float],
    noise: float,
    bias: float,
) -> NDArray[np.int16]:
    """Return a modality: the tissues' intensities, blurred, with texture, bias field and Rician noise, 0 outside."""
    shape = tissue.shape
    individual = (contrast * rng.uniform(0.93, 1.07, len(contrast))).astype(np.float32)
    clean = individual[tissue] * (1 + 0.04 * _smooth_noise(rng, shape, 0.06))
    clean = gaussian_filter(np.where(brain, clean, 0), PARTIAL_VOLUME)
    clean *= np.exp(bias * _smooth_noise(rng, shape, 0.6))
    real, imaginary = noise * rng.standard_normal((2, *shape), dtype=np.float32)
    magnitude = np.hypot(clean + real, imaginary) * WHITE_MATTER_INTENSITY * rng.uniform(0.7, 1.4)
    # As in BraTS, 0 means outside the brain.
    return np.where(brain, np.maximum(np.rint(magnitude), 1), 0).astype(np.int16)
