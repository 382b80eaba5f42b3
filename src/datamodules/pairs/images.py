"""Images with their channels first, checked, and scaled to the values that a network gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from src.utils.grids import Grid
from src.utils.image_files import StoredImage, read_stored

if TYPE_CHECKING:  # processes that only read images start sooner without torch
    from torch import Tensor


class Image(NamedTuple):
    """An image, and how its file holds it.

    Attributes:
        values: (C, *spatial).
        affine: of the file; None where it has none.
        channel_axis: of the array in the file; None without such an axis.
        key: of the array in an .npz or HDF5 file; None for its only one.
    """

    values: NDArray[np.float32]
    affine: NDArray[np.float64] | None
    channel_axis: int | None = None
    key: str | None = None

    def grid(self, file: str) -> Grid:
        """Return where its voxels are; ``file`` is its name."""
        return Grid(file, self.values.shape[1:], self.affine)


@dataclass(frozen=True)
class ImageKind:
    """What the images of one side, inputs or targets, are.

    Args:
        spatial_dims: 2 or 3.
        channels: how many there are.
        channel_axis: ``first`` | ``last``, or ``auto``: as the format has it, last in images (NIfTI, PNG, MHA, NRRD),
            first in arrays (.npy, .npz, HDF5), and in TIFF where the file says.
        key: of the array in an .npz or HDF5 file; None for its only one.
        channels_option: the key of the configuration that says ``channels``, for messages; None where the network says
            all of this.
    """

    spatial_dims: int
    channels: int
    channel_axis: str
    key: str | None
    channels_option: str | None

    def read(self, path: Path) -> Image:
        """Read an image; raise FileError if the file cannot be read, ValueError for one of another kind."""
        stored = read_stored(path, self.key)
        with np.errstate(over="ignore"):  # too large values become infinite, and are found below
            found, axis = self._channels_first(stored)
            values = np.ascontiguousarray(found, dtype=np.float32)
        if not np.isfinite(values).all():
            number = np.count_nonzero(~np.isfinite(values))
            raise ValueError(f"expected finite values, got {number} infinite or NaN values; replace them in the file")
        return Image(values, stored.affine, axis, self.key)

    def _channels_first(self, stored: StoredImage) -> tuple[NDArray, int | None]:
        values, dims = stored.values, self.spatial_dims
        if values.dtype.kind not in "biuf":
            raise ValueError(f"expected integers or floating-point numbers, got {values.dtype}")
        if stored.spatial_dims not in (None, dims):
            raise ValueError(
                f"expected {dims} spatial axes{self._hint('datamodule.spatial_dims')}, got a picture of shape "
                f"{values.shape}, which has {stored.spatial_dims}"
            )
        while values.ndim > dims + 1 and 1 in values.shape[dims:]:  # such as NIfTI's unused time axis
            values = values.squeeze(dims + values.shape[dims:].index(1))
        if values.ndim not in (dims, dims + 1) or values.size == 0:
            raise ValueError(
                f"expected {dims} spatial axes{self._hint('datamodule.spatial_dims')} and at most one of channels, got "
                f"shape {stored.values.shape}"
            )
        axis: int | None = None
        shape = values.shape
        if values.ndim == dims:
            values = values[None]
        else:
            axis = {"first": 0, "last": -1}.get(self.channel_axis, stored.channel_axis)
            values = np.moveaxis(values, axis, 0)
        if len(values) != self.channels:
            raise ValueError(
                f"expected {self.channels} channels{self._hint(self.channels_option)} and {dims} spatial axes"
                f"{self._hint('datamodule.spatial_dims')}, got {len(values)} channels in shape {stored.values.shape}"
                f"{self._hint(f'datamodule.channel_axis={self.channel_axis}')}{self._other_end(shape, axis)}"
            )
        return values, axis

    def _other_end(self, shape: tuple[int, ...], axis: int | None) -> str:
        """Return which ``channel_axis`` takes an image whose channels are not at the end ``axis`` but at the other."""
        other, name = (0, "first") if axis == -1 else (-1, "last")
        takes_it = axis is not None and shape[other] == self.channels and self.channels_option is not None
        return f"; datamodule.channel_axis={name} takes it" if takes_it else ""

    def _hint(self, option: str | None) -> str:
        return "" if self.channels_option is None else f" ({option})"


Values = TypeVar("Values", NDArray[np.float32], "Tensor")


class Window(NamedTuple):
    """The map from values v of a file to those of a network: (v − low) / (high − low)."""

    low: float
    high: float

    def scaled(self, values: Values) -> Values:
        """Return a network's values of a file's."""
        return (values - self.low) / (self.high - self.low)

    def unscaled(self, values: Values) -> Values:
        """Return a file's values of a network's."""
        return values * (self.high - self.low) + self.low


@dataclass(frozen=True)
class Scaling:
    """How the values of the files become those of a network, of which most lie in [0, 1].

    Args:
        window, target_window: the values that become 0 and 1 in all inputs and in all targets. Without a window each
            file has its own, from the percentiles of the input. Without a window for targets, they have the input's.
        percentiles: the lower and the upper one.
    """

    window: Sequence[float] | None
    target_window: Sequence[float] | None
    percentiles: Sequence[float]

    @property
    def targets_fit_pictures(self) -> bool:
        """Whether targets have the units of their inputs, or those of 8 bits: a picture's integers lose others."""
        target = None if self.target_window is None else tuple(self.target_window)
        return target in (None, self.window and tuple(self.window), (0, 255))

    def windows(self, values: NDArray[np.float32]) -> tuple[Window, Window]:
        """Return the windows of an input and of its target, from the values of the input.

        Raises:
            ValueError: if the percentiles of the values are equal.
        """
        low, high = self.window or np.percentile(values, self.percentiles).tolist()
        if not low < high:
            raise ValueError(
                f"expected values that differ, got {low:g} for the percentiles {list(self.percentiles)}; set "
                "datamodule.percentiles=[0,100], or datamodule.window=[<low>,<high>] for all files"
            )
        own = Window(low, high)
        return own, own if self.target_window is None else Window(*self.target_window)
