"""Write six pairs of small volumes to try: ``python -m src.datamodules.pairs.demo <folder>``.

Each target is a phantom of ellipsoids and each input a blurred, noisy scan of it: NIfTI files of odd and different
sizes, ``<folder>/input/pair_0.nii.gz`` and ``<folder>/target/pair_0.nii.gz`` and so on.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from src.utils.command_line import run_command_line
from src.utils.errors import ConfigError
from src.utils.nifti import write_volume

SHAPES = ((37, 45, 41), (41, 39, 47), (35, 51, 43), (43, 37, 39), (39, 41, 35), (45, 43, 37))
BLUR_VOXELS = 1.0
NOISE = 0.1
# Whatever a scanner's unit is: a phantom's values lie from 0 to this.
BRIGHTEST = 1000.0
# Neither 1 mm nor the same along each axis, as in real scans.
AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])


def make_pair(index: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return an input and its target, (X, Y, Z)."""
    rng = np.random.default_rng(index)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    target = np.zeros(shape)
    for brightness in rng.uniform(0.3, 1.0, 12):
        centre, radii = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.4, 3)
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) < 1
        target[inside] = brightness
    blurred = gaussian_filter(target, BLUR_VOXELS) + rng.normal(0, NOISE, shape)
    return (BRIGHTEST * blurred).astype(np.float32), (BRIGHTEST * target).astype(np.float32)


def write_demo(folder: Path) -> None:
    """Write the pairs below a folder."""
    for index, shape in enumerate(SHAPES):
        for side, voxels in zip(("input", "target"), make_pair(index, shape), strict=True):
            write_volume(folder / side / f"pair_{index}.nii.gz", voxels, AFFINE)


def _run(arguments: list[str]) -> None:
    if len(arguments) != 1 or "=" in arguments[0]:
        raise ConfigError(f"expected one folder to write to, got {' '.join(arguments)}")
    folder = Path(arguments[0])
    write_demo(folder)
    print(
        f"{len(SHAPES)} pairs written to {folder}: python train.py experiment=restoration datamodule.data_dir={folder}"
    )


if __name__ == "__main__":
    run_command_line(lambda: __doc__, _run)
