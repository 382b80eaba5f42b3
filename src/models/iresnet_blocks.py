"""The residual blocks of the i-ResNet and the contractions in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..invertible import ActNorm, InvertibleModule, LipSwish, ResidualBlock, SubnetConstructor, keep_input
from .blocks import CONVOLUTIONS
from .checks import check_choice, check_positive, check_spatial_dims

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"elu": nn.ELU, "lipswish": LipSwish}


def contraction(
    hidden_channels: int, *, activation: str = "elu", leading_activation: bool = True, spatial_dims: int = 2
) -> SubnetConstructor:
    """Constructor of a residual block's g: convolutions with kernel sizes 3, 1 and 3, an activation before each.

    `ResidualBlock` bounds each convolution by its coefficient c, hence ``Lip(g) ≤ c³``.

    Args:
        hidden_channels: between the convolutions.
        activation: ``elu`` (Behrmann et al., 2019) or ``lipswish`` (Chen et al., 2019).
        leading_activation: whether the first convolution has an activation before it.

    Raises:
        ValueError: for an option out of range.
    """
    check_positive(hidden_channels=hidden_channels)
    check_choice("activation", activation, ACTIVATIONS)
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
        hidden_channels, activation: see `contraction`.
        is_first: whether these are the network's first blocks. The very first begins with its convolution, since an
            activation would distort the image itself.
        actnorm: False leaves the `ActNorm` out.
        keep_inputs: whether ``backprop='reversible'`` keeps the input of each block instead of iterating for it.
        options: of every `ResidualBlock`.
    """
    steps: list[InvertibleModule] = []
    for i in range(num_blocks):
        leading = not (is_first and i == 0)
        g = contraction(hidden_channels, activation=activation, leading_activation=leading, spatial_dims=spatial_dims)
        block = ResidualBlock(channels, g, **options)
        keep_input(block, keep_inputs)
        steps += [ActNorm(channels), block] if actnorm else [block]
    return steps
