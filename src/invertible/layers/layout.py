"""The memory layout of states: with their channels first or last."""

from __future__ import annotations

from torch import Tensor


def laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """``y`` with its channels last in memory if the state ``x`` (B, C, *spatial) has them last, else as it is."""
    if x.ndim < 3 or x.stride(1) != 1:
        return y
    rows = y.movedim(1, -1)
    # By way of a flat tensor, which is a view where y is laid out so already: its strides are then what torch expects
    # of this layout in dimensions of size 1 too, without which it would take the channels as first.
    return rows.reshape(-1).view(rows.shape).movedim(-1, 1)
