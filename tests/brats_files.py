"""Small BraTS data sets in the layouts of the releases."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from src.datamodules.brats.releases import MODALITIES, RELEASES

AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
SHAPE = (14, 16, 12)
NAMES = {
    "2017": "Brats17_TCIA_{:03d}_1",
    "2018": "Brats18_TCIA01_{:03d}_1",
    "2019": "BraTS19_TCIA01_{:03d}_1",
    "2020": "BraTS20_Training_{:03d}",
    "2021": "BraTS2021_{:05d}",
    "2023": "BraTS-GLI-{:05d}-000",
    "2024": "BraTS-GLI-{:05d}-100",
}


def write_nifti(path, voxels, affine=AFFINE):
    image = nib.Nifti1Image(voxels, affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())


def make_volumes(rng, shape=SHAPE, dtype=np.int16, values=(0, 1, 2, 4)):
    """Return four modalities that are non-zero in a box, and labels in a part of that box."""
    images = np.zeros((4, *shape), dtype)
    box = (slice(2, -3), slice(1, -2), slice(3, -1))
    inner = images[(slice(None), *box)]
    real = np.issubdtype(dtype, np.floating)
    inner[...] = rng.normal(size=inner.shape) if real else rng.integers(1, 200, inner.shape)
    labels = np.zeros(shape, np.int16)
    part = tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)
    labels[part] = rng.choice(values, labels[part].shape)
    labels[part].flat[: len(values)] = values
    return images, labels


def case_folder(root, release, index):
    """Return the path of the case in the release's layout."""
    folder, year = Path(root), release[:4]
    if year in ("2017", "2018", "2019"):
        folder = folder / ("LGG" if index % 3 == 2 else "HGG")
    return folder / NAMES[year].format(index)


def write_case(root, release="2018", index=0, ending=".nii.gz", labelled=True, dtype=np.int16, shape=SHAPE):
    """Write one case and return its folder and volumes."""
    spec = RELEASES[release]
    rng = np.random.default_rng(index)
    images, labels = make_volumes(rng, shape, dtype, tuple(spec.label_values.values()))
    folder = case_folder(root, release, index)
    for modality, image in zip(MODALITIES, images, strict=True):
        write_nifti(folder / (spec.stem(folder.name, modality) + ending), image)
    if labelled:
        write_nifti(folder / (spec.stem(folder.name, "seg") + ending), labels)
    return folder, images, labels
