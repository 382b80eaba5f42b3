"""Orthogonal channel mixing by Householder reflections that a condition prescribes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..arguments import as_precise_as, check_channels, check_positive
from ..module import Condition, VolumePreserving, tensors_of


class ConditionalHouseholder(VolumePreserving):
    """``y = H_k ⋯ H_1 x`` over the channels of each voxel, with one set of reflections for each sample.

    ``H_i = I − 2 v_i v_iᵀ / |v_i|²``, or I for ``v_i = 0``; the condition holds v_i as its columns: a tensor (B, C, k),
    such as a network predicts from a label or an image, which gets its gradient. `OrthogonalMixing` has reflections of
    its own. (FrEIA's HouseholderPerm with a condition; Mathiesen et al., 2020.)

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        num_reflections: k.

    Raises:
        ValueError: for another number of channels, a state of integers, or a condition of another shape.

    Example:
        >>> layer, x = ConditionalHouseholder(4, num_reflections=2), torch.randn(8, 4)
        >>> layer(x, torch.randn(8, 4, 2)).shape
        torch.Size([8, 4])
    """

    takes_condition = True

    def __init__(self, channels: int, num_reflections: int) -> None:
        super().__init__()
        check_positive(channels=channels, num_reflections=num_reflections)
        self.channels = channels
        self.num_reflections = num_reflections

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        return _reflected(x, self._vectors(x, condition))

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        return _reflected(y, reversed(self._vectors(y, condition)))

    def _vectors(self, x: Tensor, condition: Condition) -> tuple[Tensor, ...]:
        """``v_i / |v_i|`` of shape (B, 1, C), in order, in at least float32."""
        check_channels(x, self.channels)
        parts = tensors_of(condition)
        expected = (x.shape[0], self.channels, self.num_reflections)
        if len(parts) != 1 or parts[0].shape != expected:
            found = ", ".join(str(tuple(part.shape)) for part in parts) or "none"
            raise ValueError(f"expected a condition of shape {expected}, got {found}")
        vectors = parts[0].to(torch.promote_types(x.dtype, torch.float32))
        return _normalised(vectors).mT.unsqueeze(2).unbind(1)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_reflections={self.num_reflections}"


def _normalised(vectors: Tensor) -> Tensor:
    """``v / |v|`` of the columns v of (B, C, k); zero where v is zero.

    The largest number of each column is divided off first: squares of small numbers would round to zero.
    """
    largest = vectors.detach().abs().amax(1, keepdim=True)
    scaled = vectors / largest.clamp(min=torch.finfo(vectors.dtype).tiny)
    norms = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(norms > 0, norms, 1.0)


def _reflected(x: Tensor, units: Iterable[Tensor]) -> Tensor:
    """A state after reflections at unit vectors (B, 1, C), in their order."""
    columns = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))  # (B, C, N)
    for unit in units:
        # Sums of products instead of matrix products, which autocast would compute in half precision. The first one
        # widens a state in half precision to that of the units.
        columns = columns - 2 * unit.mT * (unit.mT * columns).sum(1, keepdim=True)
    return as_precise_as(x, columns).reshape(x.shape)
