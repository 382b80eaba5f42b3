"""The memory layout of states: with their channels first or last."""

from torch import Tensor


def laid_out_as(x: Tensor, y: Tensor) -> Tensor:
    """``y`` with its channels last in memory if the state ``x`` (B, C, *spatial) has them last, else as it is."""
    if x.ndim < 3 or x.stride(1) != 1:
        return y
    rows = y.movedim(1, -1)
    # Through a flat tensor, which is a view if y has this layout already: in dimensions of size 1 too, the strides are
    # then those that torch expects of the layout. With others it would consider the channels to be first.
    return rows.reshape(-1).view(rows.shape).movedim(-1, 1)
