"""The tasks of `src.ct`, done by foam_ct_phantom, scikit-image and ASTRA.

All scans rotate about the z axis and all phantoms fill the cube [−1, 1]³, because these libraries require it.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ct_stages import Setting
from src.ct.fbp import backproject, filter_views, filtered_backprojection
from src.ct.foam import FoamPhantom
from src.ct.geometry import DETECTOR_HALF_WIDTH, ParallelBeam, grid_centres
from src.ct.placement import place_balls
from src.ct.projection import project
from src.ct.voxelisation import voxelise

Array = NDArray[np.float64]

PEERS = ("foam_ct_phantom", "astra", "skimage")
MAX_RADIUS = 0.2


def available() -> list[str]:
    """The peers that can be imported, set to one thread; foam_ct_phantom also needs its compiled library."""
    found = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    if "foam_ct_phantom" in found:
        try:
            from foam_ct_phantom import ccode
        except (ImportError, OSError):
            found.remove("foam_ct_phantom")
        else:
            ccode.setthreads(1)
    return found


def draw(setting: Setting, seed: int, num_trial_points: int) -> FoamPhantom:
    """Our phantom in a cylinder that fills the cube."""
    balls = place_balls(np.random.default_rng(seed), 1.0, 1.0, setting.balls, MAX_RADIUS, 0.0, num_trial_points)
    return FoamPhantom(1.0, 1.0, *balls)


def draw_foam_ct_phantom(setting: Setting, seed: int, num_trial_points: int) -> FoamPhantom:
    """The phantom of foam_ct_phantom, whose balls may cross the cylinder's caps."""
    import h5py
    from foam_ct_phantom import generate

    # Disable its progress bar, which would interrupt ours.
    with tempfile.TemporaryDirectory() as folder, patch.object(generate.tqdm, "trange", range):
        path = Path(folder) / "phantom.h5"
        generate.genphantom(str(path), seed, setting.balls, num_trial_points, MAX_RADIUS, zrange=1.0)
        with h5py.File(path) as file:
            spheres = file["spheres"][:].reshape(-1, 5).astype(float)
    return FoamPhantom(1.0, 1.0, spheres[:, :3], spheres[:, 3])


def covered(phantom: FoamPhantom, size: int = 64) -> float:
    """The balls' share of the cylinder, counted on a grid without what lies outside the cylinder."""
    solid = FoamPhantom(phantom.radius, phantom.half_height, np.empty((0, 3)), np.empty(0))
    return 1 - float(voxelise(phantom, size).sum(dtype=float) / voxelise(solid, size).sum(dtype=float))


def _spheres(phantom: FoamPhantom) -> NDArray[np.float32]:
    """The balls in foam_ct_phantom's layout: x, y, z, radius and value of each in a row."""
    values = np.zeros_like(phantom.radii)
    return np.column_stack([phantom.centres, phantom.radii, values]).astype(np.float32).ravel()


def foam_volume(phantom: FoamPhantom, size: int, oversampling: int) -> NDArray[np.float32]:
    """`voxelise` by foam_ct_phantom."""
    from foam_ct_phantom import ccode

    volume, spheres = np.zeros((size,) * 3, np.float32), _spheres(phantom)
    for index in range(size):
        ccode.genvol(spheres, volume, size, size, size, 2 / size, index, supersampling=oversampling)
    return volume


def foam_projections(phantom: FoamPhantom, geometry: ParallelBeam, oversampling: int) -> Array:
    """`project` by foam_ct_phantom, whose cylinder has no caps."""
    from foam_ct_phantom.project import single_par_projection

    size, spheres = geometry.detector_size, _spheres(phantom)
    views = [
        single_par_projection(spheres, size, size, geometry.pixel_size, angle, supersampling=oversampling)
        for angle in geometry.angles_rad
    ]
    return np.stack(views)


class AstraSlices:
    """ASTRA's CPU code for parallel beams, slice by slice: images (N, N) and sinograms (views, s)."""

    def __init__(self, geometry: ParallelBeam, size: int) -> None:
        import astra

        self._astra = astra
        self._image_geometry = astra.create_vol_geom(size, size, -1, 1, -1, 1)
        self._views = astra.create_proj_geom(
            "parallel", geometry.pixel_size, geometry.detector_size, geometry.angles_rad
        )
        self._projector = astra.create_projector("linear", self._views, self._image_geometry)

    def project(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """Line integrals of the slices (z, y, x): (views, z, s)."""
        sinograms = []
        for image in volume[:, ::-1]:  # ASTRA's rows run downwards
            identifier, sinogram = self._astra.create_sino(np.ascontiguousarray(image), self._projector)
            self._astra.data2d.delete(identifier)
            sinograms.append(sinogram)
        return np.stack(sinograms, axis=1)

    def fbp(self, sinograms: Array) -> NDArray[np.float32]:
        """Filtered backprojections of the rows of (views, z, s): (z, y, x)."""
        images = []
        for index in range(sinograms.shape[1]):
            sinogram = self._astra.data2d.create("-sino", self._views, np.ascontiguousarray(sinograms[:, index]))
            image = self._astra.data2d.create("-vol", self._image_geometry)
            settings = self._astra.astra_dict("FBP")
            settings.update(ProjectorId=self._projector, ProjectionDataId=sinogram, ReconstructionDataId=image)
            algorithm = self._astra.algorithm.create(settings)
            self._astra.algorithm.run(algorithm)
            images.append(self._astra.data2d.get(image)[::-1])
            self._astra.algorithm.delete(algorithm)
            self._astra.data2d.delete([sinogram, image])
        return np.stack(images)


def skimage_projections(volume: NDArray[np.float32], geometry: ParallelBeam) -> Array:
    """Line integrals of the slices (z, y, x) by scikit-image: (z, s, views), on a detector of the image's width."""
    from skimage.transform import radon

    angles_deg = np.rad2deg(geometry.angles_rad)
    with warnings.catch_warnings():  # voxels at the cylinder's wall lie partly outside its circle
        warnings.filterwarnings("ignore", "Radon transform: image must be zero outside", UserWarning)
        return np.stack([radon(image, angles_deg, circle=True) for image in volume])


def skimage_fbp(sinograms: Array, geometry: ParallelBeam, size: int) -> Array:
    """Filtered backprojections of the rows of (views, z, s) by scikit-image: (z, y, x)."""
    from skimage.transform import iradon

    angles_deg = np.rad2deg(geometry.angles_rad)
    return np.stack(
        [iradon(sinograms[:, index].T, angles_deg, output_size=size, circle=False) for index in range(size)]
    )


def relative_rms(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Root mean square of the difference divided by that of the expected values."""
    return float(np.linalg.norm((found - expected).ravel()) / np.linalg.norm(expected.ravel()))


class Tasks:
    """The tasks of one setting. All candidates start from our phantom, sinogram and volumes."""

    def __init__(self, setting: Setting) -> None:
        self.setting, spec = setting, setting.spec()
        self.scan, self.num_trial_points = spec.scan, spec.foam.num_trial_points
        self.geometry = ParallelBeam(np.array([0.0, 0.0, 1.0]), setting.views, self.scan.detector_pixels)
        self.fine_size = self.scan.fbp_oversampling * setting.size
        self.phantom = draw(setting, 0, self.num_trial_points)
        self.sinogram = project(self.phantom, self.geometry, self.scan.detector_oversampling)
        # For candidates that work slice by slice: one detector row per slice of the reconstruction.
        rows = np.linspace(0, self.geometry.detector_size - 1, self.fine_size).round().astype(int)
        self.slices = self.sinogram[:, rows]

    def ours(self) -> dict[str, Callable[[], Any]]:
        """Our function for each task."""
        tensor = torch.from_numpy(self.sinogram).float()
        return {
            "placement": lambda: draw(self.setting, 1, self.num_trial_points),
            "voxelisation": lambda: voxelise(self.phantom, self.setting.size, self.scan.truth_oversampling),
            "projection": lambda: project(self.phantom, self.geometry, self.scan.detector_oversampling),
            "FBP": lambda: filtered_backprojection(tensor, self.geometry, self.fine_size),
        }

    def foam_ct_phantom(self) -> dict[str, Callable[[], Any]]:
        """foam_ct_phantom's function for each task; it has no FBP."""
        return {
            "placement": lambda: draw_foam_ct_phantom(self.setting, 1, self.num_trial_points),
            "voxelisation": lambda: foam_volume(self.phantom, self.setting.size, self.scan.truth_oversampling),
            "projection": lambda: foam_projections(self.phantom, self.geometry, self.scan.detector_oversampling),
        }

    def astra(self) -> dict[str, Callable[[], Any]]:
        """ASTRA's function for each task; it projects voxels slice by slice."""
        slices, volume = AstraSlices(self.geometry, self.fine_size), voxelise(self.phantom, self.fine_size)
        return {"projection": lambda: slices.project(volume), "FBP": lambda: slices.fbp(self.slices)}

    def skimage(self) -> dict[str, Callable[[], Any]]:
        """scikit-image's function for each task; it projects voxels slice by slice."""
        volume = voxelise(self.phantom, self.fine_size)
        return {
            "projection": lambda: skimage_projections(volume, self.geometry),
            "FBP": lambda: skimage_fbp(self.slices, self.geometry, self.fine_size),
        }

    def candidates(self, peers: list[str]) -> dict[str, dict[str, Callable[[], Any]]]:
        """The functions of all candidates for each task."""
        by_name = {"ours": self.ours(), **{name: getattr(self, name)() for name in peers}}
        return {task: {name: done[task] for name, done in by_name.items() if task in done} for task in by_name["ours"]}


def check_agreement(setting: Setting, peers: list[str]) -> dict[str, float]:
    """Return the relative differences of the peers' results from ours and assert that they are small.

    foam_ct_phantom gives the same volumes and, within the cylinder's height, the same projections up to float32.
    ASTRA's backprojection spreads pixels over voxels, whereas ours interpolates.
    """
    tasks, found = Tasks(setting), {}
    geometry, ours = tasks.geometry, tasks.sinogram
    t = grid_centres(geometry.detector_size, DETECTOR_HALF_WIDTH)
    if "foam_ct_phantom" in peers:
        theirs = tasks.foam_ct_phantom()
        between_caps = np.abs(t) < 1 - geometry.pixel_size
        found["projection, foam_ct_phantom"] = relative_rms(
            theirs["projection"]()[:, between_caps], ours[:, between_caps]
        )
        found["voxelisation, foam_ct_phantom"] = relative_rms(theirs["voxelisation"](), tasks.ours()["voxelisation"]())
    if "astra" in peers:
        row, planes = geometry.detector_size // 2, grid_centres(tasks.fine_size)
        views = filter_views(torch.from_numpy(ours), geometry.pixel_size)
        expected = backproject(views, geometry, t[row : row + 1], planes, planes)[0].numpy()
        disc = planes[:, None] ** 2 + planes**2 < 0.9
        image = AstraSlices(geometry, tasks.fine_size).fbp(ours[:, row : row + 1])[0]
        found["FBP, astra"] = relative_rms(image[disc], expected[disc])
    for name, difference in found.items():
        limit = 0.1 if name == "FBP, astra" else 1e-5
        assert difference < limit, f"expected equal results, {name} differs by {difference:.1e}"
    return found
