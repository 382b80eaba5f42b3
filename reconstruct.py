"""Reconstruct a measured parallel-beam scan: ``python reconstruct.py scan=<file or folder> output=<file>``.

Reads HDF5 in the Data Exchange layout, .npy arrays, multi-page TIFF files and folders of TIFF files, corrects for flat
and dark fields, finds the centre of rotation, and writes one slice for each detector row by filtered backprojection.

    scan=…                 projections (views, rows, pixels)
    output=…               volume (rows, N, N): .npy, .tif, .nii or .nii.gz; with a * in its name, such as
                           slices/*.tif, one file (N, N) for each slice, and * stands for its row
    flats=… darks=…        fields without the object and without the beam, where the scan has none; floating-point
                           projections without flats count as line integrals
    angles=…               a file with an angle in degrees for each view, or first,last of equispaced views (0,180)
    centre=…               of rotation, in pixels from the centre of the first one; it is found if not given
    filter=ramp            ramp | shepp-logan | cosine | hamming | hann | none
    rows=…                 first,last detector row to reconstruct, counted from 0; all if not given
    size=…                 N, pixels per side of a slice; as many as the detector has if not given
    pixel_size_mm=1        of the detector: values are attenuation per mm, and NIfTI files have this voxel size
    min_transmission=…     raises smaller shares of the beam, which noise makes, to this, such as 0.001; dead pixels get
                           the shares between their neighbours'
    device=cpu             or cuda
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from src.utils.command_line import parse, run_command_line
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from src.ct import Scan

SUFFIXES = (".npy", ".tif", ".tiff", ".nii", ".nii.gz")
ROWS_PER_BLOCK = 16


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of reconstruct.py; the text above explains them."""

    scan: Annotated[Path, "<file or folder>"]
    output: Annotated[Path, "<file>"]
    flats: Path | None = None
    darks: Path | None = None
    angles: list[str] = field(default_factory=list)
    centre: float | None = None
    filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann", "none"] = "ramp"
    rows: list[str] = field(default_factory=list)
    size: int | None = None
    pixel_size_mm: float = 1.0
    min_transmission: float | None = None
    device: str = "cpu"
    debug: bool = False


def reconstruct(options: Options) -> Path:
    """Reconstruct a scan and write its volume; return where it is.

    Raises:
        ValueError: naming the file or option that does not fit.
    """
    _check(options)
    from src.ct import read_scan

    scan = read_scan(options.scan, flats=options.flats, darks=options.darks, angles_deg=_angles(options.angles))
    first, last = _rows(options.rows, scan)
    centre = _found_centre(scan, options, (first + last) // 2) if options.centre is None else options.centre
    volume = _volume(scan, options, first, last, centre)
    _write(options, volume, first)
    print(f"volume of {' × '.join(map(str, volume.shape))} voxels written to {options.output}")
    return options.output


def _check(options: Options) -> None:
    """Check what can be checked before the scan is read."""
    if not options.output.name.endswith(SUFFIXES):
        raise ConfigError(f"expected output=<file> ending with {', '.join(SUFFIXES)}, got {options.output.name!r}")
    if not options.pixel_size_mm > 0:
        raise ConfigError(f"expected a positive pixel_size_mm, got {options.pixel_size_mm}")
    if options.min_transmission is not None and not 0 < options.min_transmission < 1:
        raise ConfigError(f"expected min_transmission between 0 and 1, got {options.min_transmission}")
    from src.utils.processes import checked_device

    checked_device(device=options.device)
    _check_folder(options.output)


def _line_integrals(scan: Scan, options: Options, start: int, stop: int) -> Tensor:
    """Return the line integrals (rows, views, pixels) of detector rows; raise ValueError for values that are none."""
    import torch

    integrals = scan.line_integrals(slice(start, stop), min_transmission=options.min_transmission)
    return torch.from_numpy(integrals).to(options.device)


def _found_centre(scan: Scan, options: Options, row: int) -> float | None:
    """Return the centre of rotation in pixels; None if the row cannot be read, which reading the volume will report."""
    from src.ct import find_centre

    try:
        sinogram = _line_integrals(scan, options, row, row + 1)[0]
    except ValueError:
        return None
    centre = find_centre(sinogram, scan.angles_rad)
    print(f"centre of rotation: {centre} pixels, found in row {row}")
    return centre


def _volume(scan: Scan, options: Options, first: int, last: int, centre: float | None) -> NDArray[Any]:
    """Return the slices (rows, N, N) of the detector rows; all of them are checked, to name all problems at once."""
    import torch
    from rich.console import Console
    from rich.progress import track

    from src.ct import reconstruct_slices

    blocks, problems = [], []
    starts = range(first, last + 1, ROWS_PER_BLOCK)
    for start in track(starts, "reconstructing", console=Console(stderr=True), transient=True):
        try:
            sinograms = _line_integrals(scan, options, start, min(start + ROWS_PER_BLOCK, last + 1))
        except ValueError as error:
            problems.append(str(error))
        if not problems:
            slices = reconstruct_slices(
                sinograms, scan.angles_rad, centre=centre, size=options.size, filter_name=options.filter
            )
            blocks.append((slices / options.pixel_size_mm).cpu())
    if problems:
        raise ValueError("\n".join(problems))
    volume: NDArray[Any] = torch.cat(blocks).numpy()
    return volume


def _write(options: Options, volume: NDArray[Any], first: int) -> None:
    """Write the volume, or each slice with its row in place of the ``*``."""
    if "*" not in options.output.name:
        write_volume(options.output, volume, options.pixel_size_mm)
        return
    for row, image in enumerate(volume, start=first):
        name = options.output.name.replace("*", f"{row:04d}")
        write_volume(options.output.with_name(name), image, options.pixel_size_mm)


def _check_folder(output: Path) -> None:
    """Make the folder of the volume; raise ConfigError if nothing can be written there."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"expected output=<file> in a folder that can be written, got {output}: {error.strerror}"
        ) from error


def _angles(texts: list[str]) -> list[float] | str | None:
    if len(texts) == 2:
        try:
            return [float(text) for text in texts]
        except ValueError as error:
            raise ConfigError(f"expected angles=<first>,<last> in degrees, got {','.join(texts)}") from error
    if len(texts) > 2:
        raise ConfigError(f"expected angles=<file> or angles=<first>,<last>, got {len(texts)} values")
    return texts[0] if texts else None


def _rows(texts: list[str], scan: Scan) -> tuple[int, int]:
    if not texts:
        return 0, scan.num_rows - 1
    valid = len(texts) == 2 and all(text.isdecimal() for text in texts)
    if not valid or not int(texts[0]) <= int(texts[1]) < scan.num_rows:
        raise ConfigError(f"expected rows=<first>,<last> from 0 to {scan.num_rows - 1}, got rows={','.join(texts)}")
    return int(texts[0]), int(texts[1])


def write_volume(path: Path, volume: NDArray[Any], voxel_size_mm: float) -> None:
    """Write a volume (z, y, x) or a slice (y, x) in the format that the file's name ends with; it appears whole."""
    import numpy as np

    from src.utils.files import atomic_write

    if path.name.endswith((".nii", ".nii.gz")):
        from src.utils import nifti

        nifti.write_volume(path, volume.T, np.diag([*[voxel_size_mm] * 3, 1.0]))
        return
    with atomic_write(path) as file:
        if path.suffix == ".npy":
            np.save(file, volume)
        else:
            import tifffile

            buffer = io.BytesIO()  # tifffile takes no temporary file, which has no name
            tifffile.imwrite(buffer, volume, photometric="minisblack")
            file.write(buffer.getbuffer())


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, _run)


def _run(arguments: list[str]) -> None:
    options, others = parse(Options, arguments)
    if others:
        raise ConfigError(f"expected options of reconstruct.py, got {others[0]!r}; --help lists them")
    reconstruct(options)


if __name__ == "__main__":
    main()
