"""Classifiers whose features can be turned back into the image."""

from __future__ import annotations

from torch import Tensor, nn

from ..invertible import InvertibleModule
from .injective_padding import InjectivePadding


class InvertibleClassifier(nn.Module):
    """``logits = head(features(pad(x)))`` with a bijection ``features``.

    Args:
        padding: the image's channels, with zeros appended where the bijection is wider.
        features: the bijection.
        head: from the last invertible features to logits (B, num_classes).
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
        """The image with these features; with padded channels, see `InjectivePadding`."""
        return self.padding.inverse(self.features.inverse(features))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))


def pooled_head(channels: int, num_classes: int, norm: nn.Module) -> nn.Sequential:
    """Normalisation, ReLU, mean over all voxels, linear: (B, C, *spatial) to (B, num_classes)."""
    return nn.Sequential(norm, nn.ReLU(), SpatialMean(), nn.Linear(channels, num_classes))


class SpatialMean(nn.Module):
    """The mean over all voxels of each channel, (B, C, *spatial) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)
