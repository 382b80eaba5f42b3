"""Computed tomography: foam phantoms and their simulated scans, measured scans, filtered backprojection."""

from .centre import find_centre
from .fbp import FILTERS, backproject, filter_views, filtered_backprojection
from .foam import FoamPhantom, FoamSpec, draw_foam
from .geometry import CUBE_DIAGONAL, ParallelBeam, tilted_axis
from .noise import add_poisson_noise
from .placement import place_balls
from .projection import project
from .scan import Scan
from .scan_files import read_scan
from .simulation import ScanSpec, Simulation, SimulationSpec, simulate
from .slices import reconstruct_slices
from .voxelisation import downsample, voxelise

__all__ = [
    "CUBE_DIAGONAL",
    "FILTERS",
    "FoamPhantom",
    "FoamSpec",
    "ParallelBeam",
    "Scan",
    "ScanSpec",
    "Simulation",
    "SimulationSpec",
    "add_poisson_noise",
    "backproject",
    "downsample",
    "draw_foam",
    "filter_views",
    "filtered_backprojection",
    "find_centre",
    "place_balls",
    "project",
    "read_scan",
    "reconstruct_slices",
    "simulate",
    "tilted_axis",
    "voxelise",
]
