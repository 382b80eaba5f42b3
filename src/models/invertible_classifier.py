"""Classifiers whose features can be turned back into the image."""

from torch import Tensor, nn

from ..invertible import InvertibleModule
from ..invertible.arguments import check_channels
from .blocks import make_norm


class InjectivePadding(nn.Module):
    """``x ↦ [x, 0]``: appends channels of zeros, so that the bijection behind it may be wider than the image.

    ``inverse`` removes the appended channels. It is exact for features that come from an image; for others, it drops
    what these channels hold.

    Args:
        in_channels: number of channels of the images (B, in_channels, *spatial).
        channels: number of channels after the padding; None for none.

    Raises:
        ValueError: for fewer channels than the image has.

    Example:
        >>> InjectivePadding(1, 4)(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(self, in_channels: int, channels: int | None = None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = in_channels if channels is None else channels
        if self.channels < in_channels:
            raise ValueError(f"expected padded channels >= {in_channels}, those of the image, got {channels}")

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels)
        missing = self.channels - self.in_channels
        # F.pad counts from the last dimension, two numbers for each
        return nn.functional.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x

    def inverse(self, y: Tensor) -> Tensor:
        return y[:, : self.in_channels]

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.channels} channels"


class InvertibleClassifier(nn.Module):
    """``logits = head(features(padding(x)))`` with a bijection ``features``; logits are (B, num_classes).

    Args:
        padding: of the images (B, C, *spatial).
        features: a bijection of what it returns.
        head: from the features to logits.

    Example:
        >>> head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        >>> net = InvertibleClassifier(InjectivePadding(1), ActNorm(1), head)
        >>> net(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, padding: InjectivePadding, features: InvertibleModule, head: nn.Module) -> None:
        super().__init__()
        self.padding = padding
        self.features = features
        self.head = head

    def encode(self, x: Tensor) -> Tensor:
        """The last invertible features of an image."""
        return self.features(self.padding(x))

    def inverse(self, features: Tensor) -> Tensor:
        """The image with these features."""
        return self.padding.inverse(self.features.inverse(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))


def pooled_head(channels: int, num_classes: int, norm: str, spatial_dims: int) -> nn.Sequential:
    """Normalisation, ReLU, mean over all voxels, linear: (B, C, *spatial) to (B, num_classes)."""
    normalisation = make_norm(norm, channels, spatial_dims) or nn.Identity()
    return nn.Sequential(normalisation, nn.ReLU(), SpatialMean(), nn.Linear(channels, num_classes))


class SpatialMean(nn.Module):
    """The mean over all voxels of each channel, (B, C, *spatial) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)
