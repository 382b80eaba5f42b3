"""A simulated scan: phantom, axis, projections, noise, reconstruction, and the true volume."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..invertible.arguments import check_choice, check_positive
from .fbp import FILTERS, filtered_backprojection
from .foam import FoamPhantom, FoamSpec, draw_foam
from .geometry import CUBE_DIAGONAL, DETECTOR_HALF_WIDTH, ParallelBeam, tilted_axis
from .noise import add_poisson_noise, check_attenuation, check_photon_count
from .projection import project
from .voxelisation import Volume, downsample, voxelise

# Part of every cache key: raise it when the same parameters and seed no longer give the same volumes.
SIMULATION_VERSION = 1


@dataclass(frozen=True)
class ScanSpec:
    """How a phantom is scanned and reconstructed.

    Attributes:
        size: N, voxels per side of the volumes that come out.
        num_views: projections, equispaced over half a turn.
        photon_count: I₀, photons per pixel of the unattenuated beam; None or infinity for no noise.
        attenuation: μ, so that exp(−μ) of the beam passes one half-width of the cube in material.
        axis_noise_deg: standard deviation of the angle between the rotation axis and the cube's diagonal.
        fbp_filter: one of `fbp.FILTERS`.
        detector_size: pixels per side; None makes pixels as wide as the voxels of the reconstruction.
        detector_oversampling: k, a pixel's value is the mean of k² rays.
        fbp_oversampling: the reconstruction is computed at this multiple of N, then downsampled.
        truth_oversampling: the phantom is sampled at this multiple of N, then downsampled.

    Raises:
        ValueError: a value is out of its range, or the filter is unknown.

    Example:
        >>> ScanSpec(size=16, num_views=8, detector_size=None).detector_pixels
        56
    """

    size: int = 32
    num_views: int = 12
    photon_count: float | None = 500.0
    attenuation: float = 1.0
    axis_noise_deg: float = 5.0
    fbp_filter: str = "ramp"
    detector_size: int | None = None
    detector_oversampling: int = 2
    fbp_oversampling: int = 2
    truth_oversampling: int = 4

    def __post_init__(self) -> None:
        # The same values in other types are the same scan, and have the same name in a cache.
        for name in ("attenuation", "axis_noise_deg"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.photon_count is not None:
            photon_count = None if self.photon_count == math.inf else float(self.photon_count)
            object.__setattr__(self, "photon_count", photon_count)
        for name in ("size", "num_views", "detector_oversampling", "fbp_oversampling", "truth_oversampling"):
            check_positive(**{name: getattr(self, name)})
        if self.detector_size is not None:
            check_positive(detector_size=self.detector_size)
        if not 0 <= self.axis_noise_deg < 90:
            raise ValueError(f"expected axis_noise_deg in [0, 90), got {self.axis_noise_deg}")
        check_photon_count(self.photon_count)
        check_attenuation(self.attenuation)
        check_choice("fbp_filter", self.fbp_filter, FILTERS)

    @property
    def detector_pixels(self) -> int:
        """Pixels per side of the detector."""
        return self.detector_size or int(np.ceil(DETECTOR_HALF_WIDTH * self.fbp_oversampling * self.size))


@dataclass(frozen=True)
class SimulationSpec:
    """Everything that determines a simulated volume, except its seed.

    Attributes:
        foam: distribution of the phantoms.
        scan: how they are scanned.

    Example:
        >>> SimulationSpec(scan=ScanSpec(size=16)).foam == FoamSpec()
        True
    """

    foam: FoamSpec = field(default_factory=FoamSpec)
    scan: ScanSpec = field(default_factory=ScanSpec)


class Simulation(NamedTuple):
    """A simulated scan; the volumes are float32 (N, N, N) as (z, y, x).

    Attributes:
        truth: the phantom's attenuation.
        fbp: the filtered backprojection of its noisy projections.
        phantom: what was scanned.
        geometry: how.

    Example:
        >>> spec = SimulationSpec(FoamSpec(num_balls=(2, 3), num_trial_points=1000), ScanSpec(size=8, num_views=4))
        >>> truth, fbp, phantom, geometry = simulate(spec, seed=0)
    """

    truth: Volume
    fbp: Volume
    phantom: FoamPhantom
    geometry: ParallelBeam


def simulate(
    spec: SimulationSpec, seed: int | np.random.SeedSequence, device: str | torch.device = "cpu"
) -> Simulation:
    """Draw a foam phantom, scan it and reconstruct it, as section 4.1 of Etmann, Ke, Schönlieb (2020) describes.

    The same `spec` and `seed` give the same result, up to rounding. Volumes and projections are computed on `device`.
    Balls and noise are drawn on the CPU, so that they do not depend on the device.

    Args:
        spec: of phantom and scan.
        seed: of all draws.
        device: where volumes and projections are computed.

    Source: C. Etmann, R. Ke, C.-B. Schönlieb: iUNets: fully invertible U-Nets with learnable up- and downsampling,
    arXiv:2005.05220.

    Example:
        >>> spec = SimulationSpec(FoamSpec(num_balls=(2, 3), num_trial_points=1000), ScanSpec(size=8, num_views=4))
        >>> simulate(spec, seed=0).fbp.shape
        (8, 8, 8)
    """
    scan = spec.scan
    rng = np.random.default_rng(seed)
    phantom = draw_foam(spec.foam, rng)
    tilt_deg, azimuth_rad = rng.normal(0, scan.axis_noise_deg), rng.uniform(0, 2 * np.pi)
    geometry = ParallelBeam(tilted_axis(CUBE_DIAGONAL, tilt_deg, azimuth_rad), scan.num_views, scan.detector_pixels)
    exact_device = "cpu" if torch.device(device).type == "mps" else device  # which has no float64
    clean = project(phantom, geometry, scan.detector_oversampling, exact_device)
    measured = add_poisson_noise(clean, scan.photon_count, scan.attenuation, rng)
    sinogram = torch.from_numpy(measured).float().to(device)
    fine_size = scan.fbp_oversampling * scan.size
    reconstruction = filtered_backprojection(sinogram, geometry, fine_size, scan.fbp_filter)
    return Simulation(
        truth=voxelise(phantom, scan.size, scan.truth_oversampling, exact_device),
        fbp=downsample(reconstruction, scan.fbp_oversampling).cpu().numpy(),
        phantom=phantom,
        geometry=geometry,
    )
