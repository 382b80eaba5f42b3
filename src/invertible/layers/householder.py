"""Orthogonal channel mixing by Householder reflections that a condition prescribes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor
from torch.nn import functional as F

from ..arguments import check_channels, check_positive
from ..module import Condition, VolumePreserving, tensors_of


class ConditionalHouseholder(VolumePreserving):
    """``y = H_k ⋯ H_1 x`` over the channels of each voxel, with one set of reflections for each sample.

    ``H_i = I − 2 v_i v_iᵀ / |v_i|²``; the condition holds v_i as its columns: a tensor (B, C, k), such as a network
    predicts from a label or an image, which gets its gradient. `OrthogonalMixing` has reflections of its own.
    (FrEIA's HouseholderPerm with a condition; Mathiesen et al., 2020.)

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        num_reflections: k.

    Raises:
        ValueError: for another number of channels, or a condition of another shape.

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
        """The unit vectors v_i (B, 1, C), in order."""
        check_channels(x, self.channels)
        parts = tensors_of(condition)
        expected = (x.shape[0], self.channels, self.num_reflections)
        if len(parts) != 1 or parts[0].shape != expected:
            found = ", ".join(str(tuple(part.shape)) for part in parts) or "none"
            raise ValueError(f"expected a condition of shape {expected}, got {found}")
        return F.normalize(parts[0].to(x.dtype), dim=1).mT.unsqueeze(2).unbind(1)

    def extra_repr(self) -> str:
        return f"{self.channels}, num_reflections={self.num_reflections}"


def _reflected(x: Tensor, units: Iterable[Tensor]) -> Tensor:
    """A state after reflections at unit vectors (B, 1, C), in their order."""
    columns = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))  # (B, C, N)
    for unit in units:
        # Sums of products instead of matrix products, which autocast would compute in half precision.
        columns = columns - 2 * unit.mT * (unit.mT * columns).sum(1, keepdim=True)
    return columns.reshape(x.shape)
