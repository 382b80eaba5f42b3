"""Padding of images to sizes that a network can downsample, and its removal."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

PADDING_MODES = ("constant", "reflect", "replicate", "circular")


class SpatialPadding:
    """Pads the spatial size to a multiple of ``factors``, evenly on both sides.

    Args:
        factors: one per dimension.
        mode: one of `PADDING_MODES`, or None to refuse sizes that would need padding.
        value: for ``constant``.

    Raises:
        ValueError: for an unknown mode; later, for a size that needs padding while the mode is None.
    """

    def __init__(self, factors: Sequence[int], mode: str | None, value: float = 0.0) -> None:
        if mode is not None and mode not in PADDING_MODES:
            raise ValueError(f"expected padding_mode to be one of {', '.join(PADDING_MODES)} or null, got {mode!r}")
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
        flat = [width for pair in reversed(widths) for width in pair]  # F.pad counts from the last dimension
        if self.mode == "constant":
            return F.pad(x, flat, value=self.value)
        return F.pad(x, flat, mode=self.mode or "constant")

    def crop(self, y: Tensor, spatial: Sequence[int]) -> Tensor:
        """``y`` without the padding of an image whose size was ``spatial``."""
        for dimension, (size, (before, after)) in enumerate(zip(spatial, self.widths(spatial), strict=True)):
            if after:
                y = y.narrow(2 + dimension, before, size)
        return y
