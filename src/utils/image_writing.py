"""Images in the format of other image files, at the same place."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.utils.files import atomic_write
from src.utils.image_files import ending_of, hdf5_arrays, only_array
from src.utils.nifti import write_like

# Formats that lose values, or that are two files, and what is written in their place.
OTHER_ENDINGS = {".jpg": ".png", ".jpeg": ".png", ".mhd": ".mha"}
# Formats of whole numbers.
PICTURES = (".png", ".bmp")
TIFF = (".tif", ".tiff")
# Channels of a picture: grey, grey and transparency, colour, colour and transparency.
PICTURE_CHANNELS = (1, 2, 3, 4)


def output_name(name: str) -> str:
    """Return the name of the file that is written for a file of this name: another one for JPEG and MHD only."""
    ending = ending_of(name)
    assert ending is not None
    return name[: -len(ending)] + OTHER_ENDINGS[ending] if ending in OTHER_ENDINGS else name


def write_stored(
    path: Path, values: NDArray[Any], source: Path, channel_axis: int | None = None, key: str | None = None
) -> None:
    """Write an image in the format, and with the affine, header or resolution, of another file.

    Pictures (PNG, BMP) get the nearest integers of the source's type. The other formats get the values as they are.
    TIFF may also stand for a source of another format, without its resolution.

    Args:
        path: of the file; its ending is that of `output_name` for the source.
        values: (C, *spatial).
        source: the other file.
        channel_axis: where the source has channels; None for an image of one channel without such an axis. Several
            channels get the format's own axis then.
        key: of the source's array in an .npz or HDF5 file; None for its only one.

    Raises:
        ValueError: if the format cannot hold such an image.
        OSError: if the file cannot be written.
    """
    writer, own_axis = WRITERS[ending_of(path.name) or ""]
    if channel_axis is None and len(values) == 1:
        writer(path, values[0], source, key)
    else:
        same = output_name(source.name).endswith(path.suffix)
        axis = channel_axis if same and channel_axis is not None else own_axis
        writer(path, np.ascontiguousarray(np.moveaxis(values, 0, axis)), source, key)


def _write_nifti(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    write_like(source, values, path)


def _write_npy(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    with atomic_write(path) as file:
        np.save(file, values)


def _write_npz(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    with np.load(source, allow_pickle=False) as original:
        name = only_array(key, dict.fromkeys(original.files))
    with atomic_write(path) as file:
        np.savez_compressed(file, **{name: values})  # type: ignore[arg-type]


def _write_hdf5(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    import h5py

    with h5py.File(source, "r") as original:
        name = only_array(key and key.strip("/"), hdf5_arrays(original))
    content = io.BytesIO()
    with h5py.File(content, "w") as copy:
        copy[name] = values
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _write_tiff(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    import tifffile

    resolution, unit, has_samples = None, None, True
    if ending_of(source.name) in TIFF:
        with tifffile.TiffFile(source) as original:
            page = original.pages.first
            resolution, unit = page.resolution, page.resolutionunit
            has_samples = "S" in original.series[0].axes
    samples = len(values) in PICTURE_CHANNELS[2:] and has_samples
    if samples:
        values = np.moveaxis(values, 0, -1)  # pixel by pixel, as pictures have them
    content = io.BytesIO()
    tifffile.imwrite(
        content,
        np.ascontiguousarray(values),
        photometric="rgb" if samples else "minisblack",
        resolution=resolution,
        resolutionunit=unit,
    )
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _write_picture(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    from PIL import Image

    channels = 1 if values.ndim == 2 else values.shape[-1]
    if values.ndim not in (2, 3) or channels not in PICTURE_CHANNELS:
        raise ValueError(f"expected 2 spatial axes and 1 to 4 channels for {path.suffix}, got shape {values.shape}")
    with Image.open(source) as original:
        sixteen_bits = original.mode.startswith("I")
    kind = np.uint16 if sixteen_bits and channels == 1 else np.uint8
    whole = np.clip(np.rint(values), 0, np.iinfo(kind).max).astype(kind)
    with atomic_write(path) as file:
        Image.fromarray(whole).save(file, format=path.suffix[1:].upper())


def _write_itk(path: Path, values: NDArray[Any], source: Path, key: str | None) -> None:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(source))
    reader.ReadImageInformation()
    dims = reader.GetDimension()
    # NIfTI's order (X, Y, Z, C) to that of arrays, (Z, Y, X, C).
    array = values.transpose(*reversed(range(dims)), *range(dims, values.ndim))
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=values.ndim > dims)
    image.SetSpacing(reader.GetSpacing())
    image.SetOrigin(reader.GetOrigin())
    image.SetDirection(reader.GetDirection())
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:  # ITK wants a name with the ending
        SimpleITK.WriteImage(image, str(Path(folder) / path.name))
        os.replace(Path(folder) / path.name, path)


Writer = Callable[[Path, NDArray[Any], Path, "str | None"], None]
# By the endings of files: the function, and the axis of channels that the format has.
WRITERS: dict[str, tuple[Writer, int]] = {
    **dict.fromkeys((".nii.gz", ".nii"), (_write_nifti, -1)),
    ".npy": (_write_npy, 0),
    ".npz": (_write_npz, 0),
    **dict.fromkeys((".h5", ".hdf5"), (_write_hdf5, 0)),
    **dict.fromkeys(TIFF, (_write_tiff, 0)),
    **dict.fromkeys(PICTURES, (_write_picture, -1)),
    **dict.fromkeys((".mha", ".nrrd"), (_write_itk, -1)),
}


def grey_ending(shape: Sequence[int], num_bins: int) -> str:
    """Return the format for images of a shape (C, *spatial) with integers 0 … num_bins − 1: .png where that can be."""
    most = {1: 2**16, 3: 2**8}.get(shape[0], 0)
    return ".png" if len(shape) == 3 and num_bins <= most else ".npy"


def write_grey(path: Path, values: NDArray[Any], num_bins: int) -> None:
    """Write an image (C, *spatial) of real numbers as the integers 0 … num_bins − 1 below them, see `grey_ending`."""
    from PIL import Image

    whole = np.clip(np.floor(values), 0, num_bins - 1).astype(np.min_scalar_type(num_bins - 1))
    with atomic_write(path) as file:
        if path.suffix == ".png":
            picture = whole[0] if len(whole) == 1 else np.ascontiguousarray(np.moveaxis(whole, 0, -1))
            Image.fromarray(picture).save(file, format="PNG")
        else:
            np.save(file, whole)
