"""The networks that `benchmarks.engine` compares: one definition, built with our code and with alternatives."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, Inverse, Sequential, set_backprop
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet
from src.models.iunet_layout import doubled_channels
from src.models.unet import UNet

# The coupling functions: our default, and those of iunets, which make both networks equal.
BLOCKS = {
    "layer": functools.partial(ConvBlock, norm="layer"),
    "iunets": functools.partial(ConvBlock, norm="instance", final_activation=True),
}


class NotComparable(Exception):
    """Raised for a network that cannot be built here; the message says why."""


@dataclass(frozen=True)
class Definition:
    """An iUNet with additive couplings and mixing at the splits, whose channels double from level to level.

    Attributes:
        spatial_dims: 1, 2 or 3.
        channels: channels of the first level.
        levels: number of resolutions.
        couplings: number of couplings per level and side.
        block: the coupling functions, one of `BLOCKS`.
    """

    spatial_dims: int = 3
    channels: int = 16
    levels: int = 4
    couplings: int = 4
    block: str = "layer"

    @property
    def channels_per_level(self) -> list[int]:
        return doubled_channels(self.channels, self.levels)

    def subnet(self, in_channels: int, out_channels: int) -> ConvBlock:
        """A coupling function."""
        return BLOCKS[self.block](in_channels, out_channels, spatial_dims=self.spatial_dims)


def ours(policy: str, definition: Definition) -> nn.Module:
    """`IUNet` under a backprop policy."""
    net = _iunet(definition)
    set_backprop(net, policy)
    return net


def _iunet(definition: Definition) -> IUNet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not possible in 1D
        return IUNet(
            definition.channels_per_level, definition.couplings, definition.spatial_dims, subnet=definition.subnet
        )


def iunets(definition: Definition) -> nn.Module:
    """The network of github.com/cetmann/iunets, which wraps every layer with memcnn."""
    if importlib.util.find_spec("iunets") is None:
        raise NotComparable("github.com/cetmann/iunets is not on the import path")
    if definition.block != "iunets":
        raise NotComparable("has other coupling functions: --block iunets")
    from iunets import iUNet

    # Use `exp`, because their Cayley transform calls torch.lu, which torch has removed.
    return iUNet(
        _iunet(definition).channels,
        (definition.couplings,) * definition.levels,
        dim=definition.spatial_dims,
        resampling_method="exp",
        channel_mixing_method="exp",
        padding_mode=None,
    )


class _RevTorchChain(nn.Module):
    """A chain of couplings that alternate halves, as RevTorch's reversible sequence, which changes x₁ first."""

    def __init__(self, couplings: list[AdditiveCoupling]) -> None:
        super().__init__()
        from revtorch import ReversibleBlock, ReversibleSequence

        self.exchanged = not couplings[0].flip
        subnets = [coupling.subnet for coupling in couplings]
        blocks = [ReversibleBlock(f, g) for f, g in zip(subnets[::2], subnets[1::2], strict=True)]
        self.sequence = ReversibleSequence(nn.ModuleList(blocks))

    def forward(self, x: Tensor) -> Tensor:
        return self._ordered(self.sequence(self._ordered(x)))

    def _ordered(self, x: Tensor) -> Tensor:
        return x.roll(x.shape[1] // 2, dims=1) if self.exchanged else x


class _RevTorchLevel(nn.Module):
    """A level of the iUNet with its chains in RevTorch and the orthogonal maps in plain autograd."""

    def __init__(self, level: Sequential) -> None:
        super().__init__()
        self.encoder, self.decoder = _revtorch_side(level.encoder), _revtorch_side(level.decoder)
        self.num_kept = level.coarser.num_kept if hasattr(level, "coarser") else 0
        if self.num_kept:
            inner = level.coarser.inner
            self.down, self.coarser, self.up = inner.down, _RevTorchLevel(inner.level), inner.up

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        if self.num_kept:
            rest = self.up(self.coarser(self.down(x[:, self.num_kept :])))
            x = torch.cat((x[:, : self.num_kept], rest), dim=1)
        return self.decoder(x)


def _revtorch_side(side: nn.Module) -> nn.Sequential:
    parts = list(side.children())
    couplings = [part for part in parts if isinstance(part, AdditiveCoupling)]
    chain = _RevTorchChain(couplings)
    mixings = [part for part in parts if not isinstance(part, AdditiveCoupling)]
    return nn.Sequential(*mixings, chain) if isinstance(parts[0], Inverse) else nn.Sequential(chain, *mixings)


def revtorch(definition: Definition) -> nn.Module:
    """The same network with its chains of couplings in RevTorch; one reversible block there is two couplings."""
    if definition.couplings % 2 or definition.couplings == 0:
        raise NotComparable("needs an even number of couplings")
    if importlib.util.find_spec("revtorch") is None:
        raise NotComparable("revtorch is not installed")
    return _RevTorchLevel(ours("stored", definition).bijection)  # type: ignore[arg-type, union-attr]


def unet(definition: Definition) -> nn.Module:
    """The classic U-Net with the same channels."""
    width = definition.channels
    return UNet(width, width, width, definition.levels, definition.spatial_dims)


def monai(definition: Definition) -> nn.Module:
    """MONAI's U-Net with the same channels and strided convolutions."""
    if importlib.util.find_spec("monai") is None:
        raise NotComparable("monai is not installed")
    from monai.networks.nets import UNet as MonaiUNet

    width = definition.channels
    strides = (2,) * (definition.levels - 1)
    return MonaiUNet(definition.spatial_dims, width, width, definition.channels_per_level, strides)


NETWORKS: dict[str, Callable[[Definition], nn.Module]] = {
    **{policy: functools.partial(ours, policy) for policy in POLICIES},
    "iunets": iunets,
    "revtorch": revtorch,
    "unet": unet,
    "monai": monai,
}


def awake(net: nn.Module) -> nn.Module:
    """Return the network with small random numbers instead of zero parameters, so that all gradients are non-zero."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    return net
