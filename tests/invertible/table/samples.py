"""Sizes, coupling functions and the form of the layers' table, shared by the families."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from src.invertible import InvertibleModule
from src.models.blocks import ConvBlock

# A line of the table: what constructs the layer, and the shape of an input.
Case = tuple[Callable[[], InvertibleModule], tuple[int, ...]]

SPATIAL = {1: (8,), 2: (4, 6), 3: (4, 2, 4)}


def subnet(spatial_dims: int, norm: str = "none") -> Callable[[int, int], nn.Module]:
    """A small smooth coupling function: kinks would spoil comparisons of derivatives."""

    def construct(dims_in: int, dims_out: int) -> nn.Module:
        block = ConvBlock(dims_in, dims_out, spatial_dims=spatial_dims, norm=norm)
        return nn.Sequential(*(nn.Tanh() if isinstance(m, nn.LeakyReLU) else m for m in block))

    return construct


def dense(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, 7), nn.Tanh(), nn.Linear(7, dims_out))


Case = tuple[Callable[[], InvertibleModule], tuple[int, ...]]
