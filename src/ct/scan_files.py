"""Reading measured scans: HDF5 in the Data Exchange layout, TIFF stacks and NumPy arrays.

Source of the layout: F. De Carlo et al.: Scientific data exchange: a schema for HDF5-based storage of raw and analyzed
data, Journal of Synchrotron Radiation 21 (2014), 1224.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scan import Scan, even_angles

COUNTS, FLATS, DARKS, THETA = "/exchange/data", "/exchange/data_white", "/exchange/data_dark", "/exchange/theta"
HDF5, TIFF = (".h5", ".hdf5", ".hdf", ".nxs"), (".tif", ".tiff")
HALF_TURN_DEG = (0.0, 180.0)


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
            folder of TIFF files, one for each view in the order of their names.
        flats, darks: the same for the flat and the dark fields, in place of those of an HDF5 file. Without flats the
            projections count as line integrals.
        angles_deg: a text or .npy file of one angle for each view, or (first, last) of equispaced views; by default
            what the HDF5 file says, else 0 to 180 degrees, both included.

    Raises:
        ValueError: naming the file, for one that is missing, damaged or of another layout.
    """
    path = Path(path)
    found = _read_hdf5(path) if path.suffix.lower() in HDF5 else {COUNTS: _read_stack(path)}
    counts = found[COUNTS]
    if angles_deg is None and THETA in found:
        angles_rad = np.deg2rad(np.asarray(found[THETA], dtype=np.float64).ravel())
    else:
        angles_rad = _angles(angles_deg, len(counts))
    return Scan(
        counts,
        angles_rad,
        found.get(FLATS) if flats is None else _read_stack(Path(flats)),
        found.get(DARKS) if darks is None else _read_stack(Path(darks)),
        str(path),
    )


def _angles(given: str | Path | Sequence[float] | None, num_views: int) -> NDArray[np.float64]:
    if given is None:
        return even_angles(num_views, HALF_TURN_DEG)
    if not isinstance(given, str | Path):
        return even_angles(num_views, given)
    try:
        values = np.load(given) if Path(given).suffix == ".npy" else np.loadtxt(given)
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a file of {num_views} angles in degrees, got {str(given)!r}: {error}") from error
    return np.deg2rad(np.atleast_1d(values).astype(np.float64))


def _read_hdf5(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("reading HDF5 scans needs h5py: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"expected an HDF5 file, got {str(path)!r}: {error}") from error
    if not isinstance(file.get(COUNTS), h5py.Dataset):
        names: list[str] = []
        file.visititems(lambda name, node: names.append(f"/{name}") if isinstance(node, h5py.Dataset) else None)
        raise ValueError(
            f"expected a dataset {COUNTS} (Data Exchange) in {str(path)!r}, got {', '.join(names[:10]) or 'none'}"
        )
    return {name: file[name] for name in (COUNTS, FLATS, DARKS, THETA) if isinstance(file.get(name), h5py.Dataset)}


def _read_stack(path: Path) -> NDArray[Any]:
    """Images (n, rows, pixels) of a .npy file, a TIFF file or a folder of TIFF files; a single image is a stack."""
    if not path.exists():
        raise ValueError(f"expected a .npy file, a TIFF file or a folder of TIFF files, got {str(path)!r}, not there")
    if path.suffix == ".npy":
        try:
            stack = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"expected an array in {str(path)!r}, got a damaged file: {error}") from error
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in TIFF and not file.name.startswith("."))
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
    return stack[None] if stack.ndim == 2 else stack


def _read_tiff(path: Path) -> NDArray[Any]:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError("reading TIFF scans needs tifffile: pip install tifffile") from error
    try:
        return tifffile.imread(path)
    except (tifffile.TiffFileError, ValueError, OSError) as error:
        raise ValueError(f"expected a TIFF file, got {str(path)!r}: {error}") from error
