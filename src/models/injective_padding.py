"""More channels for a bijection: zeros appended to an image."""

from __future__ import annotations

from torch import Tensor, nn


class InjectivePadding(nn.Module):
    """``x ↦ [x, 0]``: appends channels of zeros, so that a bijection behind it may be wider than the image.

    Injective, and no bijection: ``inverse`` cuts the appended channels off, which is exact for features that come from
    an image. For others it drops what stands in these channels.

    Args:
        in_channels: channels of the image.
        channels: channels after the padding, at least as many; None for as many.

    Raises:
        ValueError: for fewer channels than the image has.
    """

    def __init__(self, in_channels: int, channels: int | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = in_channels if channels is None else channels
        if self.channels < in_channels:
            raise ValueError(f"expected padding to at least the {in_channels} channels of the image, got {channels}")

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected images with {self.in_channels} channels, got {x.shape[1]}")
        missing = self.channels - self.in_channels
        # F.pad counts from the last dimension, two numbers for each
        return nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x

    def inverse(self, y: Tensor) -> Tensor:
        """The first ``in_channels`` channels."""
        return y[:, : self.in_channels]

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.channels} channels"
