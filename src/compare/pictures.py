"""Pictures as data URIs, limited in number and size."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from src.compare.runs import RunRecord
from src.runs.folder import Series
from src.utils.reading import reading

# A triptych of volumes takes about 20 kB, so 20 runs with 2 series of 12 epochs take 10 MB.
MAX_EPOCHS = 12
MAX_SIDE = 1200
# A file of a few kB may declare any number of pixels; this many take 256 MB when unpacked.
MAX_PIXELS = 2**26

Frames = list[tuple[int | None, str]]


def embed(run: RunRecord, choice: str, notes: list[str]) -> dict[str, Frames]:
    """Return the run's pictures by name, each as a list of (epoch, data URI) ordered by epoch.

    Args:
        choice: ``all``, ``test`` (only the pictures made after training) or ``none``.
        notes: receives a line for each damaged picture, which is skipped.
    """
    if choice == "none":
        return {}
    found: dict[str, Frames] = {}
    for name, series in run.pictures.items():
        for epoch in choose_epochs(series) if choice == "all" or None in series else []:
            uri = data_uri_or_note(series[epoch], notes)
            if uri is not None:
                found.setdefault(name, []).append((epoch, uri))
    return found


def data_uri_or_note(path: Path, notes: list[str]) -> str | None:
    """Return the data URI; for a damaged file, add a note and return None."""
    try:
        return data_uri(path)
    except ValueError as error:
        notes.append(f"skipped: {error}")
        return None


def choose_epochs(series: Series | Mapping[int, Path], limit: int = MAX_EPOCHS) -> list[int | None]:
    """Return at most ``limit`` evenly spaced epochs of a series, including the first and the last."""
    epochs: Sequence[int | None] = sorted(series, key=lambda epoch: -1 if epoch is None else epoch)
    if len(epochs) <= limit:
        return list(epochs)
    return [epochs[round(i * (len(epochs) - 1) / (limit - 1))] for i in range(limit)]


def data_uri(path: Path) -> str:
    """Return a picture as a data URI: the file itself or lossless WebP, whichever is smaller.

    A picture with a side longer than ``MAX_SIDE`` pixels is scaled down.

    Raises:
        ValueError: if the file is not a valid PNG picture.
    """
    # Runs write only PNG. Decoders of other formats may even start external programs.
    with reading(path, "a picture"), Image.open(path, formats=("PNG",)) as image:
        if math.prod(image.size) > MAX_PIXELS:
            raise ValueError(f"expected at most {MAX_PIXELS} pixels, got {image.width} × {image.height}")
        is_large = max(image.size) > MAX_SIDE
        picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if is_large:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True)
    kind, content = "webp", buffer.getvalue()
    if not is_large and path.stat().st_size <= len(content):
        kind, content = "png", path.read_bytes()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
