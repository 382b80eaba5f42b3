"""Coupling layers: one group of channels is changed by a function of the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .module import VolumePreserving

SubnetConstructor = Callable[[int, int], nn.Module]


class AdditiveCoupling(VolumePreserving):
    """Shift one group of channels by a function of the other (Dinh et al., 2014).

    ``y = [x₁, x₂ + F(x₁)]``, or with ``flip`` ``y = [x₁ + F(x₂), x₂]``, so that couplings with alternating ``flip``
    change every channel in turn.

    Args:
        channels: number of channels C of the state.
        subnet: constructor of F, called as ``subnet(dims_in, dims_out)``; F keeps the spatial size.
        split: number of channels of x₁; half of them (rounded up) by default.
        flip: change the first group instead of the second.

    Raises:
        ValueError: if either group would be empty, or the state does not have C channels.
    """

    def __init__(
        self, channels: int, subnet: SubnetConstructor, *, split: int | None = None, flip: bool = False
    ) -> None:
        super().__init__()
        split = (channels + 1) // 2 if split is None else split
        if not 0 < split < channels:
            raise ValueError(f"expected a split between 1 and channels - 1, got split={split}, channels={channels}")
        self.sizes = [split, channels - split]
        self.flip = flip
        self.subnet = subnet(self.sizes[flip], self.sizes[not flip])

    def groups(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The group that is read and the group that is changed, as views."""
        if state.shape[1] != sum(self.sizes):
            raise ValueError(f"expected {sum(self.sizes)} channels, got {state.shape[1]}")
        first, second = state.split(self.sizes, dim=1)
        return (second, first) if self.flip else (first, second)

    def _join(self, read: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, read) if self.flip else (read, changed), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        read, changed = self.groups(x)
        return self._join(read, changed + self.subnet(read))

    def inverse(self, y: Tensor) -> Tensor:
        read, changed = self.groups(y)
        return self._join(read, changed - self.subnet(read))

    def extra_repr(self) -> str:
        return f"split={self.sizes[0]}+{self.sizes[1]}, flip={self.flip}"
