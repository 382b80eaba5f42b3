"""Reading an image of any size and kind as grey values of the network's size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms.functional import center_crop, resize

from src.utils.reading import reading

# PIL's names of the modes, by number of channels.
MODES = {1: "L", 3: "RGB"}
FITS = ("crop", "stretch", "exact")
# Modes of 16 bits per channel; PIL's own conversion to 8 bits cuts them off at 255.
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L")
GREY = {"1", "L", "LA", "La"}
# A palette may have colours or not, so its files count as neither.
PALETTES = {"P", "PA"}


class ReadImage(NamedTuple):
    """An image (channels, size, size), and whether its file has another number of them: grey or colours."""

    values: NDArray[np.uint8]
    is_converted: bool


def read_image(path: Path, channels: int, size: int, fit: str, upscale: bool) -> ReadImage:
    """Return an image as grey values (channels, size, size), turned upright as its EXIF data say.

    Args:
        path: of any file that PIL reads with 8 or 16 bits per channel.
        channels: 1 (colours become their luminance) or 3 (grey is repeated); transparency is dropped.
        size: rows and columns.
        fit: ``crop`` scales the shorter side to ``size`` and cuts out the centre; ``stretch`` scales both sides to
            ``size``; ``exact`` refuses other sizes.
        upscale: whether images with fewer rows or columns than ``size`` are enlarged; otherwise they are refused.

    Raises:
        FileError: if the file is damaged, no image, or refused.
    """
    with reading(path, "an image"), Image.open(path) as file:
        stored = _eight_bits(ImageOps.exif_transpose(file))
        is_converted = stored.mode not in PALETTES and (stored.mode in GREY) != (channels == 1)
        image = stored.convert(MODES[channels])
        width, height = image.size
        if fit == "exact" and image.size != (size, size):
            raise ValueError(f"expected {size}×{size} pixels, got {width}×{height}; datamodule.fit=crop scales it")
        if min(image.size) < size and not upscale:
            raise ValueError(
                f"expected at least {size}×{size} pixels, got {width}×{height}; datamodule.upscale=true enlarges it, "
                f"and image.size={min(image.size)} takes it as it is"
            )
        if fit == "crop":
            image = center_crop(resize(image, [size]), [size])
        elif fit == "stretch":
            image = resize(image, [size, size])
        return ReadImage(np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1), is_converted)


def conversion_note(number: int, total: int, channels: int) -> str:
    """Return a sentence on ``number`` images of ``total`` whose number of channels was changed."""
    if channels == 1:
        return f"{number} of {total} images have colours, of which image.channels=1 takes the luminance"
    return f"{number} of {total} images are grey, and image.channels={channels} repeats their one channel"


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BITS:
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits per channel, got PIL's mode {image.mode}")
    return image
