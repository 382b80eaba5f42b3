"""Computed tomography: foam phantoms, exact parallel-beam projections, Poisson noise, filtered backprojection."""

from .fbp import FILTERS, backproject, filter_views, filtered_backprojection
from .foam import FoamPhantom, FoamSpec, draw_foam
from .geometry import CUBE_DIAGONAL, ParallelBeam, tilted_axis
from .noise import add_poisson_noise
from .placement import place_balls
from .projection import project
from .simulation import ScanSpec, Simulation, SimulationSpec, simulate
from .voxelisation import downsample, voxelise

__all__ = [
    "CUBE_DIAGONAL",
    "FILTERS",
    "FoamPhantom",
    "FoamSpec",
    "ParallelBeam",
    "ScanSpec",
    "Simulation",
    "SimulationSpec",
    "add_poisson_noise",
    "backproject",
    "downsample",
    "draw_foam",
    "filter_views",
    "filtered_backprojection",
    "place_balls",
    "project",
    "simulate",
    "tilted_axis",
    "voxelise",
]
