"""An image with the values of its file as a network takes it, and what the network makes of it in the file's values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from src.datamodules.pairs.images import Image, ImageKind


def unchanged(output: Tensor) -> Tensor:
    """Return the output of a network itself."""
    return output


class Converted(NamedTuple):
    """An image for a network.

    Attributes:
        values: (C, *spatial).
        undo: maps the network's output to the values that files have.
    """

    values: Tensor
    undo: Callable[[Tensor], Tensor] = unchanged


def converted(datamodule: Any, values: Tensor) -> Converted:
    """Return an image (C, *spatial) with a file's values as the data's ``convert`` does; without one, as it is."""
    convert = getattr(datamodule, "convert", None)
    return Converted(values) if convert is None else convert(values)


def read_input(datamodule: Any, path: Path) -> Image:
    """Return the image of a file as the data's ``read_input`` does; without one, with the data's channels and axes.

    Raises:
        ValueError: if it cannot be read or is another kind of image.
    """
    read = getattr(datamodule, "read_input", None)
    if read is not None:
        return read(path)
    channels, *spatial = datamodule.sample_shape
    return ImageKind(len(spatial), channels, "auto", None, None).read(path)
