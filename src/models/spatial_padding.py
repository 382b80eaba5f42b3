"""Padding of images to sizes that a network can downsample, and its removal."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

IMAGE_PADDINGS = ("constant", "reflect", "replicate", "circular")
# How many voxels of a side, at its border, the mode cannot copy into the padding; other modes copy as many as needed.
UNCOPIED_VOXELS = {"reflect": 1, "circular": 0}


class SpatialPadding:
    """Pads the spatial size to a multiple of ``factors``, evenly on both sides.

    Args:
        factors: one per dimension.
        mode: one of `IMAGE_PADDINGS`, or None to refuse sizes that would need padding.
        value: for ``constant``.

    Raises:
        ValueError: for an unknown mode; later, for a size that needs padding while the mode is None, or more padding
            than the image has voxels to reflect or to repeat.
    """

    def __init__(self, factors: Sequence[int], mode: str | None, value: float = 0.0) -> None:
        if mode is not None and mode not in IMAGE_PADDINGS:
            raise ValueError(f"expected padding_mode to be one of {', '.join(IMAGE_PADDINGS)} or None, got {mode!r}")
        self.factors = tuple(factors)
        self.mode = mode
        self.value = value

    def missing(self, spatial: Sequence[int]) -> list[int]:
        """Voxels to add in each dimension."""
        if len(spatial) != len(self.factors):
            raise ValueError(f"expected {len(self.factors)} spatial dimensions, got size {tuple(spatial)}")
        return [-n % f for n, f in zip(spatial, self.factors, strict=True)]

    def widths(self, spatial: Sequence[int]) -> list[tuple[int, int]]:
        """Voxels to add before and after, per dimension."""
        missing = self.missing(spatial)
        if any(missing) and self.mode is None:
            raise ValueError(
                f"expected a spatial size divisible by {self.factors}, got {tuple(spatial)}: "
                "change the size, the number of levels or the strides, or set padding_mode"
            )
        return [(m // 2, m - m // 2) for m in missing]

    def pad(self, x: Tensor) -> Tensor:
        """``x`` of shape (B, C, *spatial), padded where needed."""
        widths = self.widths(x.shape[2:])
        if not any(after for _, after in widths):
            return x
        self._check_widths(tuple(x.shape[2:]), widths)
        flat = [width for pair in reversed(widths) for width in pair]  # F.pad counts from the last dimension
        if self.mode == "constant":
            return F.pad(x, flat, value=self.value)
        return F.pad(x, flat, mode=self.mode or "constant")

    def _check_widths(self, spatial: tuple[int, ...], widths: Sequence[tuple[int, int]]) -> None:
        if self.mode not in UNCOPIED_VOXELS:
            return
        largest = tuple(size - UNCOPIED_VOXELS[self.mode] for size in spatial)
        needed = tuple(after for _, after in widths)
        if any(width > limit for width, limit in zip(needed, largest, strict=True)):
            raise ValueError(
                f"expected padding_mode={self.mode} to add at most {largest} voxels to a side of an image of size "
                f"{spatial}, got {needed}; padding_mode=replicate or constant adds any number"
            )

    def crop(self, y: Tensor, spatial: Sequence[int]) -> Tensor:
        """``y`` without the padding of an image whose size was ``spatial``."""
        for dimension, (size, (before, after)) in enumerate(zip(spatial, self.widths(spatial), strict=True)):
            if after:
                y = y.narrow(2 + dimension, before, size)
        return y
