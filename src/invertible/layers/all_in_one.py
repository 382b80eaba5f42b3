"""Affine coupling, global scaling and permutation in one block."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import chosen, per_channel
from ..composites import Sequential
from ..log_determinants import sum_over_voxels
from ..module import InvertibleModule
from .affine import Clamp, GlowCoupling
from .coupling import SubnetConstructor
from .linear import Permutation
from .mixing import OrthogonalMixing
from .orthogonal import random_orthogonal

# The factors are FrEIA's, so that weights trained there give the same outputs.
SUBNET_SCALE = 0.1
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda a: 10 * torch.sigmoid(a - 2),
    "softplus": lambda a: 0.1 * nn.functional.softplus(a, beta=0.5),
    "exp": torch.exp,
}


class GlobalAffine(InvertibleModule):
    """``y = Ψ(a) x + b`` with learned a and b per channel; it starts at a given scale, not from the data as `ActNorm`.

    ``log|det dy/dx| = Σ log Ψ(a)`` times the number of voxels.

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        activation: Ψ: ``sigmoid`` (``10 sigmoid(a − 2)``, at most 10), ``softplus`` (``0.1 softplus(a)``,
            β = 1/2) or ``exp``; None for no scaling, ``Ψ = 1``.
        init: scale ``Ψ(a)`` at the start.

    Raises:
        ValueError: for an unknown activation, a scale that it does not reach, or another number of channels.

    Example:
        >>> GlobalAffine(2, activation="exp", init=0.5)(torch.ones(1, 2))
        tensor([[0.5000, 0.5000]], grad_fn=...)
    """

    def __init__(self, channels: int, activation: str | None = "softplus", init: float = 1.0) -> None:
        super().__init__()
        self.activation = None if activation is None else activation.lower()
        if self.activation is not None:
            self.scale = nn.Parameter(torch.full((channels,), _before(self.activation, init)))
        self.offset = nn.Parameter(torch.zeros(channels))

    def scale_and_offset(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``Ψ(a)`` and b, shaped to be broadcast over a state (B, C, *spatial)."""
        offset = per_channel(self.offset, x)
        if self.activation is None:
            return torch.ones_like(offset), offset
        return SCALES[self.activation](self.scale).reshape(offset.shape), offset

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_and_logdet(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        scale, offset = self.scale_and_offset(y)
        return (y - offset) / scale

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, offset = self.scale_and_offset(x)
        return scale * x + offset, sum_over_voxels(scale.log(), x)

    def extra_repr(self) -> str:
        return f"{self.offset.shape[0]}, activation={self.activation!r}"


def _before(activation: str, scale: float) -> float:
    """The a with ``Ψ(a) = scale``."""
    chosen("the global scale's activation", activation, SCALES)
    highest = 10 if activation == "sigmoid" else math.inf
    if not 0 < scale < highest:
        raise ValueError(f"expected an initial global scale between 0 and {highest} with {activation!r}, got {scale}")
    if activation == "sigmoid":
        return 2 - math.log(10 / scale - 1)
    if activation == "softplus":
        return 10 * scale + 2 * math.log(-math.expm1(-5 * scale))  # 2 log(exp(5 scale) − 1), which may overflow
    return math.log(scale)


class AllInOneBlock(Sequential):
    """Affine coupling, global affine map and permutation: the block of Glow, as FrEIA's AllInOneBlock has it.

    ``y = P (Ψ(a) · coupling(x) + b)``, or with ``reverse_permutation`` ``y = P (Ψ(a) · coupling(P⁻¹ x) + b)``. The
    coupling is a `GlowCoupling` that reads the first half of the channels, with the outputs of its subnet scaled by
    0.1. P is an orthogonal matrix over the channels. Random parts are drawn at construction and kept in buffers.

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        subnet: constructor of the coupling's subnet, called as ``subnet(dims_in, dims_out)``.
        condition_channels: channels of a condition, which the subnet sees too; see `coupling.condition_like`.
        affine_clamping: the coupling's scales lie between ``exp(± affine_clamping)``.
        clamp_activation: how; see `AffineCoupling`.
        gin_block: make the block volume-preserving: see `AffineCoupling`; no global scaling, offsets only.
        global_affine_init, global_affine_type: scale at the start and Ψ; see `GlobalAffine`.
        permute_soft: P is a random orthogonal matrix instead of a random permutation.
        learned_householder_permutation: number of learned Householder reflections in P, which starts at the random
            matrix; 0: P is fixed.
        reverse_permutation: undo P before the coupling (Putzky and Welling, 2019).

    Raises:
        ValueError: for options outside these.

    Example:
        >>> block = AllInOneBlock(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1), permute_soft=True)
        >>> y, logdet = block.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(
        self,
        channels: int,
        subnet: SubnetConstructor,
        *,
        condition_channels: int = 0,
        affine_clamping: float = 2.0,
        clamp_activation: str | Clamp = "tanh",
        gin_block: bool = False,
        global_affine_init: float = 1.0,
        global_affine_type: str = "softplus",
        permute_soft: bool = False,
        learned_householder_permutation: int = 0,
        reverse_permutation: bool = False,
    ) -> None:
        coupling = GlowCoupling(
            channels,
            subnet,
            condition_channels=condition_channels,
            clamp=affine_clamping,
            clamp_activation=clamp_activation,
            volume_preserving=gin_block,
            subnet_scale=SUBNET_SCALE,
        )
        scaling = GlobalAffine(channels, None if gin_block else global_affine_type, global_affine_init)
        permutation = _permutation(channels, permute_soft, learned_householder_permutation)
        parts = OrderedDict(coupling=coupling, scaling=scaling, permutation=permutation)
        if reverse_permutation:
            parts["reverse_permutation"] = permutation.inverted()
            parts.move_to_end("reverse_permutation", last=False)
        super().__init__(parts)


def _permutation(channels: int, soft: bool, num_reflections: int) -> InvertibleModule:
    if num_reflections < 0:
        raise ValueError(f"expected learned_householder_permutation >= 0, got {num_reflections}")
    order = torch.randperm(channels)
    if not soft and num_reflections == 0:
        return Permutation(channels, order.tolist())
    matrix: Any = random_orthogonal(1, channels) if soft else torch.eye(channels)[order]
    if num_reflections == 0:
        return OrthogonalMixing(channels, init=matrix, learnable=False)
    return OrthogonalMixing(channels, method="householder", init=matrix, num_reflections=num_reflections)
