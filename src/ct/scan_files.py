"""Reading measured scans: HDF5 in the Data Exchange layout, TIFF stacks and NumPy arrays.

Source of the layout: F. De Carlo et al.: Scientific data exchange: a schema for HDF5-based storage of raw and analyzed
data, Journal of Synchrotron Radiation 21 (2014), 1224.
"""

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scan import Scan, even_angles

COUNTS, FLATS, DARKS, THETA = "/exchange/data", "/exchange/data_white", "/exchange/data_dark", "/exchange/theta"
HDF5, TIFF = (".h5", ".hdf5", ".hdf", ".nxs"), (".tif", ".tiff")
HALF_TURN_DEG = (0.0, 180.0)
# So many views may lie within some degrees; angles of more views within 2π are radians.
MAX_VIEWS_OF_WEDGE = 8


def read_scan(
    path: str | Path,
    *,
    flats: str | Path | None = None,
    darks: str | Path | None = None,
    angles_deg: str | Path | Sequence[float] | None = None,
) -> Scan:
    """Read a parallel-beam scan; the projections of HDF5 and .npy files are read when they are needed.

    Args:
        path: an HDF5 file in the Data Exchange layout, a .npy file (views, rows, pixels), a multi-page TIFF file, or a
            folder of TIFF files, one for each view in the order of their names, in which 10 comes after 9.
        flats, darks: the same for the flat and the dark fields, in place of those of an HDF5 file. Without flats the
            projections count as line integrals.
        angles_deg: a text or .npy file of one angle for each view, or (first, last) of equispaced views; by default
            what the HDF5 file says, else 0 to 180 degrees, both included.

    Raises:
        ValueError: naming the file, for one that is missing, damaged or of another layout.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(path := pathlib.Path(folder, "scan.npy"), np.ones((4, 2, 8)))  # (views, rows, pixels)
        ...     print(read_scan(path, angles_deg=(0, 135)).num_rows)
        2
    """
    path = Path(path)
    found = _read_hdf5(path, COUNTS) if path.suffix.lower() in HDF5 else {COUNTS: _read_stack(path)}
    counts = found[COUNTS]
    if angles_deg is None and THETA in found:
        angles_rad = _stored_angles(found[THETA], path)
    else:
        angles_rad = _angles(angles_deg, len(counts))
    white, dark = (
        _as_stack(found.get(name) if given is None else _read_field(Path(given), name))
        for name, given in ((FLATS, flats), (DARKS, darks))
    )
    return Scan(counts, angles_rad, white, dark, str(path))


def _read_field(path: Path, name: str) -> Any:
    """The flat or dark fields of a file, which in an HDF5 file have their own name or, alone, that of counts."""
    if path.suffix.lower() not in HDF5:
        return _read_stack(path)
    found = _read_hdf5(path, name, COUNTS)
    return found.get(name, found.get(COUNTS))


def _as_stack(fields: Any) -> Any:
    """A single image as a stack of one."""
    return fields[:][None] if fields is not None and len(fields.shape) == 2 else fields


def _stored_angles(theta: Any, path: Path) -> NDArray[np.float64]:
    """The angles of a Data Exchange file, in degrees unless its attribute ``units`` says radians."""
    values = np.asarray(theta, dtype=np.float64).ravel()
    units = theta.attrs.get("units", "")
    units = units.decode() if isinstance(units, bytes) else str(units)
    return values if units.lower().startswith("rad") else _from_degrees(values, path)


def _from_degrees(values: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Degrees as radians; raise ValueError for more than a few views within 2π degrees, which are radians already."""
    if len(values) > MAX_VIEWS_OF_WEDGE and np.ptp(values) < 2 * np.pi + 1e-3:
        raise ValueError(
            f"expected angles in degrees, got {len(values)} from {values.min():.4g} to {values.max():.4g} in "
            f"{str(path)!r}, which seem to be radians; give the first and the last one, such as angles=0,180"
        )
    return np.deg2rad(values)


def _angles(given: str | Path | Sequence[float] | None, num_views: int) -> NDArray[np.float64]:
    if given is None:
        return even_angles(num_views, HALF_TURN_DEG)
    if not isinstance(given, str | Path):
        return even_angles(num_views, given)
    try:
        values = np.load(given) if Path(given).suffix == ".npy" else np.loadtxt(given)
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a file of {num_views} angles in degrees, got {str(given)!r}: {error}") from error
    return _from_degrees(np.asarray(values, dtype=np.float64).ravel(), Path(given))


def _read_hdf5(path: Path, *wanted: str) -> dict[str, Any]:
    """The datasets of a Data Exchange file, which has at least one of those that are wanted."""
    _check_exists(path)
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading HDF5 scans needs h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"expected an HDF5 file, got {str(path)!r}: {error}") from error
    if not any(isinstance(file.get(name), h5py.Dataset) for name in wanted):
        names: list[str] = []
        file.visititems(lambda name, node: names.append(f"/{name}") if isinstance(node, h5py.Dataset) else None)
        raise ValueError(
            f"expected a dataset {' or '.join(wanted)} (Data Exchange) in {str(path)!r}, got "
            f"{', '.join(names[:10]) or 'none'}"
        )
    return {name: file[name] for name in (COUNTS, FLATS, DARKS, THETA) if isinstance(file.get(name), h5py.Dataset)}


def _read_stack(path: Path) -> NDArray[Any]:
    """Images (n, rows, pixels) of a .npy file, a TIFF file or a folder of TIFF files, or one (rows, pixels)."""
    _check_exists(path)
    if path.suffix == ".npy":
        try:
            stack = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            # numpy's own message advises to load what may run code
            raise ValueError(
                f"expected an array of numbers, got {str(path)!r}, which is damaged or holds something else"
            ) from error
    elif path.is_dir():
        found = (file for file in path.iterdir() if file.suffix.lower() in TIFF and not file.name.startswith("."))
        files = sorted(found, key=lambda file: _counted(file.name))
        if not files:
            raise ValueError(f"expected TIFF files in {str(path)!r}, got none")
        images = [_read_tiff(file) for file in files]
        odd = next((i for i, image in enumerate(images) if image.shape != images[0].shape or image.ndim != 2), None)
        if odd is not None:
            raise ValueError(
                f"expected single images of one shape, got {images[0].shape} in {files[0].name} and "
                f"{images[odd].shape} in {files[odd].name} of {str(path)!r}"
            )
        stack = np.stack(images)
    elif path.suffix.lower() in TIFF:
        stack = _read_tiff(path)
    else:
        raise ValueError(f"expected {', '.join((*HDF5, '.npy', *TIFF))} or a folder of TIFF files, got {str(path)!r}")
    return stack


def _counted(name: str) -> list[str | int]:
    """Return a key that sorts names by the numbers in them."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"expected a file or folder of a scan's images, got {str(path)!r}, which does not exist")


def _read_tiff(path: Path) -> NDArray[Any]:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError("reading TIFF scans needs tifffile: pip install tifffile") from error
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise ValueError("no image, or only the beginning of a file")
            # Pages that were written one by one are a series each; another shape is that of a small copy of the image.
            alike = [series for series in file.series if series.shape == file.series[0].shape]
            return alike[0].asarray() if len(alike) == 1 else np.stack([series.asarray() for series in alike])
    except (tifffile.TiffFileError, struct.error, ValueError, OSError) as error:
        raise ValueError(f"expected a TIFF file, got {str(path)!r}: {error}") from error
