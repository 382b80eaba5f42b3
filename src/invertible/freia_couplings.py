"""Coupling blocks of FrEIA (0.2) as couplings of ours, so that backward evaluates each of their subnets once.

The default rule evaluates them twice: to invert the block, and to differentiate it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .engine.walk import LeafBackward
from .layers.affine import affine_coupling, inverse_affine_coupling
from .layers.coupling import additive_coupling, inverse_additive_coupling
from .module import Condition, all_modules, in_single_precision, tensors_of

# The subnets of each half, in the order of the forward pass.
_SUBNETS = {
    "NICECouplingBlock": (("F",), ("G",)),
    "RNVPCouplingBlock": (("subnet_s2", "subnet_t2"), ("subnet_s1", "subnet_t1")),
    "GLOWCouplingBlock": (("subnet2",), ("subnet1",)),
    "GINCouplingBlock": (("subnet2",), ("subnet1",)),
}


@dataclass(frozen=True)
class Half:
    """Half of a block, which answers what the backward rules of our couplings ask a coupling for."""

    block: Any
    subnets: tuple[nn.Module, ...]
    flip: bool
    after: Half | None = None  # evaluated first, since its random draws or moved buffers precede those of this half

    def back(self, leaf: LeafBackward, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """From the output of this half and its gradient to its input and the gradient of that."""
        return additive_coupling(leaf, self, y, grad) if self._is_additive else affine_coupling(leaf, self, y, grad)

    def inverse_back(self, leaf: LeafBackward, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the inverse of this half."""
        rule = inverse_additive_coupling if self._is_additive else inverse_affine_coupling
        return rule(leaf, self, y, grad)

    def groups(self, state: Tensor) -> tuple[Tensor, Tensor]:
        first, second = state.split([self.block.split_len1, self.block.split_len2], dim=1)
        return (second, first) if self.flip else (first, second)

    def shift(self, read: Tensor, condition: Condition) -> Tensor:
        return self._outputs(read, condition)[0]

    def log_scale_and_shift(self, read: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        outputs = self._outputs(read, condition)
        raw_s, t = outputs if len(outputs) == 2 else outputs[0].chunk(2, dim=1)
        s = self.block.clamp * self.block.f_clamp(raw_s)
        return s - s.mean(1, keepdim=True) if self._kind == "GINCouplingBlock" else s, t

    def _outputs(self, read: Tensor, condition: Condition) -> list[Tensor]:
        """Of the subnets."""
        if self.after is not None:
            with torch.no_grad():
                # What it reads is not known yet. What it draws depends on the shape alone.
                channels = self.block.channels - read.shape[1]
                self.after._outputs(read.new_zeros(len(read), channels, *read.shape[2:]), condition)
        seen = torch.cat([read, *tensors_of(condition)], 1) if self.block.conditional else read
        return [in_single_precision(subnet(seen)) for subnet in self.subnets]

    @property
    def _kind(self) -> str:
        return type(self.block).__name__

    @property
    def _is_additive(self) -> bool:
        return self._kind == "NICECouplingBlock"


def halves_back(block: nn.Module, leaf: LeafBackward, *, inverse: bool = False) -> list[Half]:
    """The halves of a block, or of its inverse, the last one first; none for a block that may return something else.

    These are blocks of another class, and those with hooks.
    """
    kind = type(block)
    is_watched = block._forward_hooks or block._forward_pre_hooks or "forward" in block.__dict__
    if not kind.__module__.startswith("FrEIA.") or kind.__name__ not in _SUBNETS or is_watched:
        return []
    subnets = [tuple(block.get_submodule(name) for name in names) for names in _SUBNETS[kind.__name__]]
    first, last = (Half(block, part, flip) for part, flip in zip(subnets, (True, False), strict=True))
    if inverse:
        first, last = last, first
    if leaf.draws_random_numbers or _modules(subnets[0]) & _modules(subnets[1]):
        last = replace(last, after=first)
    return [last, first]


def _modules(subnets: tuple[nn.Module, ...]) -> set[nn.Module]:
    return {module for subnet in subnets for module in all_modules(subnet)}
