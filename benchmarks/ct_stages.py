"""CPU time of one simulated scan by stage."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from benchmarks.measure import timed
from src.ct.fbp import filtered_backprojection
from src.ct.foam import FoamSpec, draw_foam
from src.ct.geometry import CUBE_DIAGONAL, ParallelBeam
from src.ct.noise import add_poisson_noise
from src.ct.projection import project
from src.ct.simulation import ScanSpec, SimulationSpec
from src.ct.voxelisation import downsample, voxelise

Result = TypeVar("Result")

STAGES = ("placement", "projection", "noise", "FBP", "voxelisation")


@dataclass(frozen=True)
class Setting:
    """The size of a simulated scan: voxels per side, number of balls, number of views."""

    size: int = 64
    balls: int = 1000
    views: int = 24

    def spec(self) -> SimulationSpec:
        """The simulation, with all other values as in ``experiment=ct_postproc scale=medium``."""
        foam = FoamSpec(num_balls=(self.balls, self.balls), max_radius=0.2, min_radius=0.01)
        return SimulationSpec(foam, ScanSpec(size=self.size, num_views=self.views, photon_count=2000.0))

    def __str__(self) -> str:
        return f"{self.size}³, {self.balls} balls, {self.views} views"


def variations(base: Setting, **values: tuple[int, ...]) -> list[Setting]:
    """The base setting and all settings that differ from it in one value."""
    others = [dataclasses.replace(base, **{name: v}) for name, options in values.items() for v in options]
    return list(dict.fromkeys([base, *others]))


def timed_result(function: Callable[[], Result]) -> tuple[float, Result]:
    """The CPU seconds of one call and its result."""
    results: list[Result] = []
    return timed(lambda: results.append(function())), results[0]


def stage_seconds(setting: Setting, seeds: range) -> dict[str, float]:
    """Median CPU seconds of each stage and of their sum, over scans with these seeds."""
    scans = [_one_scan(setting.spec(), seed) for seed in seeds]
    seconds = {stage: statistics.median(scan[stage] for scan in scans) for stage in STAGES}
    return {**seconds, "sum": statistics.median(sum(scan.values()) for scan in scans)}


def _one_scan(spec: SimulationSpec, seed: int) -> dict[str, float]:
    """CPU seconds of the stages of `src.ct.simulation.simulate`, about the cube's diagonal."""
    scan, rng, seconds = spec.scan, np.random.default_rng(seed), {}

    def stage(name: str, function: Callable[[], Result]) -> Result:
        seconds[name], result = timed_result(function)
        return result

    geometry = ParallelBeam(np.array(CUBE_DIAGONAL), scan.num_views, scan.detector_pixels)
    phantom = stage("placement", lambda: draw_foam(spec.foam, rng))
    clean = stage("projection", lambda: project(phantom, geometry, scan.detector_oversampling))
    measured = stage("noise", lambda: add_poisson_noise(clean, scan.photon_count, scan.attenuation, rng))
    sinogram = torch.from_numpy(measured).float()
    fine_size = scan.fbp_oversampling * scan.size
    stage("FBP", lambda: downsample(filtered_backprojection(sinogram, geometry, fine_size), scan.fbp_oversampling))
    stage("voxelisation", lambda: voxelise(phantom, scan.size, scan.truth_oversampling))
    return seconds
