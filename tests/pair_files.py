"""Images in files of every format that the pairs have, written with the formats' own writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import SimpleITK
import tifffile
from numpy.typing import NDArray
from PIL import Image

AFFINE = np.array([[0.0, -2.0, 0, 7], [1.5, 0, 0, -3], [0, 0, 3.0, 11], [0, 0, 0, 1]])


def write_image(path: Path, values: NDArray[Any], affine: NDArray = AFFINE) -> None:
    """Write an array with the axes that the format has: channels first in arrays, last in images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.name.partition(".")[2]
    if ending in ("nii", "nii.gz"):
        nib.save(nib.Nifti1Image(values, affine), path)
    elif ending == "npy":
        np.save(path, values)
    elif ending == "npz":
        np.savez(path, volume=values)
    elif ending == "h5":
        with h5py.File(path, "w") as file:
            file["scan/volume"] = values
    elif ending == "tif":
        tifffile.imwrite(path, values, photometric="minisblack")
    elif ending == "png":
        Image.fromarray(values).save(path)
    else:
        SimpleITK.WriteImage(itk_image(values), path)


def itk_image(values: NDArray[Any], channels: bool = False) -> SimpleITK.Image:
    """Return an image (X, Y, Z) in ITK's order and its world, which has x and y the other way round, at AFFINE."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    if image.GetDimension() == 3:
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_pair(folder: Path, name: str, shape: tuple[int, ...] = (14, 13, 12), **changes: Any) -> NDArray[np.float32]:
    """Write ``input/<name>`` and ``target/<name>``, a noisy image and its truth; ``changes`` replace one of them."""
    rng = np.random.default_rng(len(name))
    target = rng.random(shape, np.float32)
    images = {"input": target + 0.1 * rng.random(shape, np.float32), "target": target} | changes
    for side, values in images.items():
        write_image(folder / side / name, values)
    return images["input"]
