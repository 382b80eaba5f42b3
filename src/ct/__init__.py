"""Computed tomography: foam phantoms and their simulated scans, measured scans, filtered backprojection."""

from .centre import find_centre as find_centre
from .fbp import FILTERS as FILTERS
from .fbp import backproject as backproject
from .fbp import filter_views as filter_views
from .fbp import filtered_backprojection as filtered_backprojection
from .foam import FoamPhantom as FoamPhantom
from .foam import FoamSpec as FoamSpec
from .foam import draw_foam as draw_foam
from .geometry import CUBE_DIAGONAL as CUBE_DIAGONAL
from .geometry import ParallelBeam as ParallelBeam
from .geometry import tilted_axis as tilted_axis
from .noise import add_poisson_noise as add_poisson_noise
from .placement import place_balls as place_balls
from .projection import project as project
from .scan import Scan as Scan
from .scan_files import read_scan as read_scan
from .simulation import ScanSpec as ScanSpec
from .simulation import Simulation as Simulation
from .simulation import SimulationSpec as SimulationSpec
from .simulation import simulate as simulate
from .slices import reconstruct_slices as reconstruct_slices
from .voxelisation import downsample as downsample
from .voxelisation import voxelise as voxelise
