"""A bijection of some of the channels: split, inner map and concatenation in one."""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_positive
from ..composites import Composite
from ..engine.ownership import may_overwrite
from ..module import BackStep, InvertibleModule, Position, Step
from .layout import laid_out_as


class OnChannels(Composite):
    """Keep the first ``num_kept`` channels and send the others through ``inner``.

    ``y = [x_kept, inner(x_rest)]``: split, inner map and concatenation in one, hence a bijection of one tensor.

    Args:
        inner: a bijection of one tensor, which may change its number of channels.
        num_kept: channels that stay as they are.

    Raises:
        ValueError: unless at least one channel is kept and one is sent through ``inner``.

    Example:
        >>> OnChannels(FixedAffine(2.0), num_kept=1)(torch.ones(1, 3))
        tensor([[1., 2., 2.]])
    """

    overwrites_input = True

    def __init__(self, inner: InvertibleModule, num_kept: int) -> None:
        super().__init__()
        check_positive(num_kept=num_kept)
        self.inner = inner
        self.num_kept = num_kept

    def run(self, x: Tensor, step: Step) -> Tensor:
        if x.shape[1] <= self.num_kept:
            raise ValueError(f"expected more than the {self.num_kept} kept channels, got {x.shape[1]}")
        rest = step(self.inner, x[:, self.num_kept :])
        if may_overwrite(self, x) and (rest.shape, rest.dtype) == (x[:, self.num_kept :].shape, x.dtype):
            x[:, self.num_kept :] = rest
            return x
        # A single channel has no layout of its own: torch would put the channels first.
        return laid_out_as(x, torch.cat((x[:, : self.num_kept], rest), dim=1))

    def run_back(self, position: Position, step: BackStep) -> None:
        y_rest = position.state[:, self.num_kept :]
        rest = Position(y_rest, None if position.grad is None else position.grad[:, self.num_kept :])
        step(self.inner, rest)
        _write(rest.state, y_rest)
        if position.grad is None and rest.grad is not None:  # by its log-determinant alone
            position.grad = torch.zeros_like(position.state)
        if position.grad is not None:
            _write(rest.grad, position.grad[:, self.num_kept :])

    def inverted(self) -> OnChannels:
        return OnChannels(self.inner.inverted(), self.num_kept)

    def extra_repr(self) -> str:
        return f"num_kept={self.num_kept}"


def _write(value: Tensor, place: Tensor) -> None:
    """Copy a value to its place; it may be another view of that place's numbers, as a reshaping leaves it."""
    if value.untyped_storage().data_ptr() == place.untyped_storage().data_ptr():
        value = value.clone()
    place.copy_(value)
