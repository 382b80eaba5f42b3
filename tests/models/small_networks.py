"""Every network that a config can name, with its options, in a small size: one table for tests of all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from src.models.blocks import NORMS, ConvBlock
from src.models.convnet import ConvNet
from src.models.density import DensityModel
from src.models.glow import Glow
from src.models.iconvnet import IConvNetClassifier
from src.models.iconvnet_flows import IConvNetFlow, IConvNetGlowFlow, IConvNetMultiscaleFlow
from src.models.iresnet import IResNetClassifier, IResNetFlow
from src.models.irevnet import IRevNet
from src.models.iunet import IUNet
from src.models.iunet_flow import IUNetFlow
from src.models.lab import LabIRevNet, LabNet
from src.models.lifted import Lifted
from src.models.partially_reversible_unet import PartiallyReversibleUNet
from src.models.realnvp import RealNVP
from src.models.unet import UNet

# What constructs a network, and the shape of an image without the batch dimension.
Network = tuple[Callable[[], nn.Module], tuple[int, ...]]
SPATIAL = {1: (8,), 2: (8, 4), 3: (4, 4, 4)}


def iunet(spatial_dims: int = 2, *, norm: str = "layer", **options: Any) -> Lifted:
    subnet = functools.partial(ConvBlock, spatial_dims=spatial_dims, norm=norm)
    return Lifted(1, 1, IUNet((4, 2 * 2**spatial_dims), 2, spatial_dims, subnet=subnet, **options))


def flow(network: nn.Module, size: int = 4, **options: Any) -> DensityModel:
    return DensityModel(network, (1, size, size), **options)  # type: ignore[arg-type]


IMAGE_TO_IMAGE: dict[str, Network] = {
    "unet-padded": (lambda: UNet(1, 1, 2, 2, 2, padding_mode="reflect"), (1, 7, 5)),
    "iunet-padded": (lambda: iunet(padding_mode="reflect"), (1, 7, 5)),
    "iunet-mixing-every-coupling": (lambda: iunet(mixing_frequency=1), (1, 8, 4)),
    "partially-reversible-unet-padded": (
        lambda: PartiallyReversibleUNet(1, 1, [4, 8], 2, padding_mode="reflect"),
        (1, 7, 5),
    ),
}
for d, size in SPATIAL.items():
    IMAGE_TO_IMAGE[f"unet-{d}d"] = (lambda d=d: UNet(1, 1, 2, 2, d), (1, *size))
    IMAGE_TO_IMAGE[f"iunet-{d}d"] = (lambda d=d: iunet(d), (1, *size))
    IMAGE_TO_IMAGE[f"partially-reversible-unet-{d}d"] = (
        lambda d=d: PartiallyReversibleUNet(1, 1, [4, 8], d),
        (1, *size),
    )
for norm in NORMS:
    IMAGE_TO_IMAGE[f"unet-{norm}"] = (lambda norm=norm: UNet(1, 1, 2, 2, 2, norm=norm), (1, 8, 4))
    IMAGE_TO_IMAGE[f"iunet-{norm}"] = (lambda norm=norm: iunet(norm=norm), (1, 8, 4))
for method in ("cayley", "householder"):
    matrices = {"method": method}
    IMAGE_TO_IMAGE[f"iunet-{method}"] = (lambda m=matrices: iunet(resampling=m, mixing=m), (1, 8, 4))

CLASSIFIERS: dict[str, Network] = {
    "lab-net": (lambda: LabNet(size=8, num_layers=2, kernel_size=3), (1, 8, 8)),
    "lab-irevnet": (lambda: LabIRevNet(size=8, num_layers=2, kernel_size=3), (1, 8, 8)),
    "irevnet": (lambda: IRevNet(1, 3, (1, 1), (1, 2), padded_channels=4), (1, 8, 8)),
    "irevnet-bijective": (lambda: IRevNet(1, 3, (2,), (2,), initial_downsampling=2, norm="group"), (1, 8, 8)),
    "iresnet": (lambda: IResNetClassifier(1, 3, (1, 1), (4, 4), padded_channels=2), (1, 8, 8)),
    "iresnet-lipswish": (
        lambda: IResNetClassifier(1, 3, (1, 1), (4, 4), activation="lipswish", actnorm=False),
        (1, 8, 8),
    ),
    "convnet": (lambda: ConvNet(1, 3, 4, dropout=0.5), (1, 8, 8)),
}
for downsampling in ("checkerboard", "nearest", "average"):
    CLASSIFIERS[f"convnet-{downsampling}"] = (
        lambda name=downsampling: ConvNet(
            1, 3, 4, padding_mode="circular", activation="sneaky_relu", downsampling=name
        ),
        (1, 8, 8),
    )
    CLASSIFIERS[f"iconvnet-{downsampling}"] = (
        lambda name=downsampling: IConvNetClassifier(1, 3, 2, (1, 1), downsampling=name),
        (1, 8, 8),
    )

FLOWS: dict[str, Network] = {
    "realnvp": (lambda: flow(RealNVP(1, 2, 1, 4, 1)), (1, 4, 4)),
    "realnvp-skips": (
        lambda: flow(RealNVP(1, 2, 1, 4, 1, skip_connections=True, channel_factor=2)),
        (1, 4, 4),
    ),
    "realnvp-variational": (lambda: flow(RealNVP(1, 1, 1, 4, 1), dequantisation="variational"), (1, 4, 4)),
    "glow": (lambda: flow(Glow(1, 2, 1, 4), preprocessing="centre"), (1, 4, 4)),
    "iresnet-flow": (lambda: flow(IResNetFlow(1, 2, 1, 4)), (1, 4, 4)),
    "iresnet-flow-roulette": (lambda: flow(IResNetFlow(1, 1, 1, 4, logdet="roulette", num_terms=2)), (1, 4, 4)),
    "iconvnet-flow": (lambda: flow(IConvNetFlow(1, (1, 2)), 8), (1, 8, 8)),
    "iconvnet-flow-nearest": (lambda: flow(IConvNetFlow(1, (1, 1), downsampling="nearest"), 8), (1, 8, 8)),
    "iconvnet-flow-checkerboard": (lambda: flow(IConvNetFlow(1, (1, 1), downsampling="checkerboard"), 8), (1, 8, 8)),
    "iconvnet-multiscale-flow": (
        lambda: flow(IConvNetMultiscaleFlow(2, (1, 1)), 8, augmented_channels=2),
        (1, 8, 8),
    ),
    "iconvnet-glow-flow": (lambda: flow(IConvNetGlowFlow(1, 1, 2), 8), (1, 8, 8)),
    "iunet-flow": (lambda: flow(IUNetFlow(1, 2, 2, 4), 8), (1, 8, 8)),
}
NETWORKS = IMAGE_TO_IMAGE | CLASSIFIERS | FLOWS
# One of each kind, for the fast tests.
REPRESENTATIVES = (
    "unet-3d",
    "iunet-2d",
    "iunet-instance",
    "partially-reversible-unet-padded",
    "irevnet",
    "iresnet",
    "convnet",
    "iconvnet-average",
    "realnvp-variational",
    "glow",
    "iresnet-flow",
    "iconvnet-flow",
)


def fast_and_slow(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: the representatives, and the other networks as slow ones."""
    return [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.slow) for name in names]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network with perturbed parameters, away from special starts, and two images; grey values for a flow."""
    construct, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = construct()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net, torch.randint(256, (2, *shape)).float() if name in FLOWS else torch.randn(2, *shape)
