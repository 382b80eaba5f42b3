"""Image files of many formats as arrays with the place of their voxels.

Libraries are imported where they are used: most data sets have one format.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.utils.reading import reading

# From LPS, the world of ITK, to RAS, that of NIfTI.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class StoredImage(NamedTuple):
    """An array as its file has it.

    Attributes:
        values: spatial axes, with a channel axis or without.
        channel_axis: which axis the format has channels on, if there is one more than the spatial axes: 0 or -1.
        affine: 4×4, from voxel indices to millimetres (RAS); None where the format does not know it.
        spatial_dims: how many axes are spatial; None where the format leaves it open.
    """

    values: NDArray[Any]
    channel_axis: int
    affine: NDArray[np.float64] | None = None
    spatial_dims: int | None = None


def read_stored(path: Path, key: str | None = None) -> StoredImage:
    """Read an image file of any of `READERS`.

    Args:
        path: of the file; its ending tells the format.
        key: which array of an .npz or HDF5 file; None for its only one.

    Raises:
        FileError: if it is no such file, or not a whole one.
    """
    ending = ending_of(path.name)
    reader = READERS.get(ending or "")
    with reading(path, f"an image file ({', '.join(READERS)})" if reader is None else f"a whole {ending} image"):
        if reader is None:
            raise ValueError("another ending")
        return reader(path, key)


def ending_of(name: str, endings: Iterable[str] | None = None) -> str | None:
    """Return the ending of a file's name that tells its format, in lower case; None for another one.

    ``endings`` are the possible ones; None for those of `READERS`.
    """
    return next((ending for ending in endings or READERS if name.lower().endswith(ending)), None)


def without_ending(name: str, endings: Iterable[str] | None = None) -> str:
    """Return a file's name without the ending that tells its format, see `ending_of`."""
    return name[: len(name) - len(ending_of(name, endings) or "")]


def image_paths(folder: Path, endings: Iterable[str] | None = None) -> Iterator[Path]:
    """Yield the image files below a folder, in order, without hidden ones; see `ending_of`."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if not name.startswith(".") and ending_of(name, endings):
                yield Path(place) / name


def _read_nifti(path: Path, key: str | None) -> StoredImage:
    from src.utils.nifti import ANY, read_volume

    volume = read_volume(path, ANY)
    return StoredImage(volume.voxels, -1, volume.affine)


def _read_npy(path: Path, key: str | None) -> StoredImage:
    return StoredImage(np.lib.format.open_memmap(path, mode="r"), 0)


def _read_npz(path: Path, key: str | None) -> StoredImage:
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say how to run it
        raise ValueError("no archive of arrays, or only its beginning")
    with np.load(path, allow_pickle=False) as file:
        return StoredImage(file[only_array(key, dict.fromkeys(file.files))], 0)


def _read_hdf5(path: Path, key: str | None) -> StoredImage:
    import h5py

    with h5py.File(path, "r") as file:
        found = hdf5_arrays(file)
        return StoredImage(found[only_array(key and key.strip("/"), found)][()], 0)


def hdf5_arrays(file: Any) -> dict[str, Any]:
    """Return the arrays of an open HDF5 file by their paths."""
    import h5py

    found: dict[str, Any] = {}
    file.visititems(lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None)
    return found


def _read_tiff(path: Path, key: str | None) -> StoredImage:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not file.series:
            raise ValueError("no image, or only the beginning of a file")
        # Pages that were written one by one are a series each; another shape is that of a small copy of the image.
        alike = [series for series in file.series if series.shape == file.series[0].shape]
        # S are samples of a pixel such as RGB, C the channels of a microscope.
        axis = next((i for i, name in enumerate(alike[0].axes) if name in "SC"), 0)
        images = [np.moveaxis(series.asarray(), axis, 0) for series in alike]
        return StoredImage(images[0] if len(images) == 1 else np.stack(images, axis=_page_axis(alike[0].axes)), 0)


def _page_axis(axes: str) -> int:
    """Return where the axis of the pages goes: behind channels, which are first."""
    return 1 if any(name in "SC" for name in axes) else 0


def _read_picture(path: Path, key: str | None) -> StoredImage:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if image.mode != "I;16" and _bits_of_png(path) == 16:
            number = len(image.getbands())
            raise ValueError(
                f"its {number} channels of 16 bits would lose half of them; a TIFF or .npy file keeps them"
            )
        # Some have no values themselves, but bits, or indices into a palette.
        values_mode = {"1": "L", "P": "RGB"}.get(image.mode, image.mode)
        # As viewers show it: a camera notes in the file how it was held.
        return StoredImage(np.asarray(ImageOps.exif_transpose(image).convert(values_mode)), -1, spatial_dims=2)


def _bits_of_png(path: Path) -> int | None:
    """Return the bits of a channel; None for another format."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") else None


def _read_itk(path: Path, key: str | None) -> StoredImage:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        # Lines before name places in ITK's source, and its reason is that of an earlier call.
        found = str(error).rpartition("ITK ERROR: ")[2].partition("Reason:")[0]
        raise ValueError(" ".join(re.sub(r"\(0x[0-9a-f]+\)", "", found).split())) from error
    values, dims = SimpleITK.GetArrayViewFromImage(image), image.GetDimension()
    values = np.array(values.transpose(*reversed(range(dims)), *range(dims, values.ndim)))  # as NIfTI's (X, Y, Z, C)
    affine = np.eye(4)
    space = min(dims, 3)
    direction = np.reshape(image.GetDirection(), (dims, dims))
    affine[:space, :space] = (direction * image.GetSpacing())[:space, :space]
    affine[:space, 3] = image.GetOrigin()[:space]
    return StoredImage(values, -1, LPS_TO_RAS @ affine)


def only_array(key: str | None, arrays: Mapping[str, Any]) -> str:
    """Return the key, or that of the only array; raise ValueError where that is not clear."""
    names = ", ".join(sorted(arrays)) or "none"
    if key is not None and key not in arrays:
        raise ValueError(f"expected an array {key!r}, got {names} (datamodule.input_key, datamodule.target_key)")
    if key is None and len(arrays) != 1:
        raise ValueError(f"expected one array, got {names}; datamodule.input_key and target_key name one")
    return key if key is not None else next(iter(arrays))


# Longer endings first: .nii.gz is a .gz too.
READERS: dict[str, Callable[[Path, str | None], StoredImage]] = {
    ".nii.gz": _read_nifti,
    ".nii": _read_nifti,
    ".npy": _read_npy,
    ".npz": _read_npz,
    **dict.fromkeys((".h5", ".hdf5"), _read_hdf5),
    **dict.fromkeys((".tif", ".tiff"), _read_tiff),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), _read_picture),
    **dict.fromkeys((".mha", ".mhd", ".nrrd"), _read_itk),
}
