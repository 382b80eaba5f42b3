"""The bijective parts of the classification networks and U-Nets: their lines of the table."""

from __future__ import annotations

from typing import Any

from src.invertible import InvertibleModule
from src.models.irevnet import IRevNet
from src.models.lab import LabIRevNet
from src.models.partially_reversible_unet import PartiallyReversibleUNet
from tests.invertible.table.samples import SPATIAL, Case


def irevnet(
    in_channels: int, *, num_blocks: tuple[int, ...], strides: tuple[int, ...], **options: Any
) -> InvertibleModule:
    return IRevNet(in_channels, 2, num_blocks, strides, **options).features


def reversible_encoder(spatial_dims: int) -> InvertibleModule:
    """The bijection of one resolution."""
    net = PartiallyReversibleUNet(1, 1, [4], spatial_dims, num_encoder_blocks=2)
    encoder = net.encoders[0]
    assert isinstance(encoder, InvertibleModule)
    return encoder


# One image per batch: batch normalisation over several would put the determinant into their joint Jacobian.
LAYERS: dict[str, Case] = {
    "irevnet-1d": (
        lambda: irevnet(1, num_blocks=(1, 2), strides=(1, 2), initial_downsampling=2, spatial_dims=1),
        (1, 1, 16),
    ),
    "irevnet-2d": (lambda: irevnet(2, num_blocks=(2, 1), strides=(1, 2), bottleneck=1), (1, 2, 8, 8)),
    "irevnet-2d-colour": (lambda: irevnet(3, num_blocks=(1,), strides=(2,), initial_downsampling=2), (1, 3, 8, 8)),
    "irevnet-2d-group": (lambda: irevnet(4, num_blocks=(2,), strides=(2,), norm="group"), (2, 4, 4, 4)),
    "irevnet-3d": (lambda: irevnet(2, num_blocks=(2,), strides=(2,), spatial_dims=3), (1, 2, 4, 4, 4)),
    "lab-irevnet": (lambda: LabIRevNet(size=8, num_layers=3, kernel_size=3).features, (2, 1, 8, 8)),
    "lab-irevnet-colour": (lambda: LabIRevNet(3, 8, num_layers=2, kernel_size=3).features, (1, 3, 8, 8)),
}
for d, size in SPATIAL.items():
    LAYERS[f"reversible-encoder-{d}d"] = (lambda d=d: reversible_encoder(d), (2, 4, *size))
