"""The residual blocks of the i-ResNet: their contractions, and the blocks of one resolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..invertible import ActNorm, InvertibleModule, LipSwish, ResidualBlock, SubnetConstructor, keep_input
from .blocks import CONVOLUTIONS, check_spatial_dims

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"elu": nn.ELU, "lipswish": LipSwish}


def contraction(
    hidden_channels: int, *, activation: str = "elu", leading_activation: bool = True, spatial_dims: int = 2
) -> SubnetConstructor:
    """Constructor of a residual block's g: convolutions with kernels of 3, 1 and 3, an activation before each.

    `ResidualBlock` bounds each convolution by its coefficient c, hence ``Lip(g) ≤ c³``.

    Args:
        hidden_channels: between the convolutions.
        activation: ``elu`` (Behrmann et al., 2019) or ``lipswish`` (Chen et al., 2019).
        leading_activation: whether one stands before the first convolution, too.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these.
    """
    if hidden_channels < 1:
        raise ValueError(f"expected hidden_channels >= 1, got {hidden_channels}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"expected activation to be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    convolution, activate = CONVOLUTIONS[check_spatial_dims(spatial_dims)], ACTIVATIONS[activation]

    def construct(dims_in: int, dims_out: int) -> nn.Module:
        layers = [
            activate(),
            convolution(dims_in, hidden_channels, 3, padding=1),
            activate(),
            convolution(hidden_channels, hidden_channels, 1),
            activate(),
            convolution(hidden_channels, dims_out, 3, padding=1),
        ]
        return nn.Sequential(*layers if leading_activation else layers[1:])

    return construct


def residual_steps(
    channels: int,
    num_blocks: int,
    hidden_channels: int,
    *,
    is_first: bool = False,
    activation: str = "elu",
    actnorm: bool = True,
    keep_inputs: bool = True,
    spatial_dims: int = 2,
    **options: Any,
) -> list[InvertibleModule]:
    """The residual blocks of one resolution, an `ActNorm` before each.

    Args:
        channels: of the state.
        num_blocks: number of blocks.
        hidden_channels: see `contraction`, as for activation and spatial_dims.
        is_first: whether the first of them is the network's first, which begins with its convolution: an activation
            would bend the image itself.
        actnorm: whether the `ActNorm` are there.
        keep_inputs: whether ``backprop='reversible'`` keeps the input of each block instead of iterating for it.
        options: of every `ResidualBlock`.
    """
    steps: list[InvertibleModule] = []
    for i in range(num_blocks):
        g = contraction(
            hidden_channels,
            activation=activation,
            leading_activation=not (is_first and i == 0),
            spatial_dims=spatial_dims,
        )
        block = ResidualBlock(channels, g, **options)
        keep_input(block, keep_inputs)
        steps += [ActNorm(channels), block] if actnorm else [block]
    return steps
