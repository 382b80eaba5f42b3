"""Values that layers of a tree compute from parameters alone: before each forward pass, those of one kind in one batch.

The walk back uses the values of the forward pass. Only their gradient computes them again, at its end: the graph of an
orthogonal matrix takes 27 times the memory of the matrix, which is all that waits for the walk.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from ..module import all_modules

if TYPE_CHECKING:
    from typing_extensions import Self

_running = threading.local()


class SharedValue(nn.Module):
    """A module without input, whose value the engine computes once for a forward pass and the walk back.

    A subclass says how in `values` and `batch_key`. One that has a ``forward`` of its own is left alone.
    """

    def batch_key(self) -> Hashable:
        """Modules of one class with equal keys are computed in one batch."""
        raise NotImplementedError

    @classmethod
    def values(cls, modules: Sequence[Self]) -> Sequence[Tensor]:
        """The values of modules with equal keys."""
        raise NotImplementedError

    def forward(self) -> Tensor:
        known = {} if torch.is_grad_enabled() else _known()
        return known[self] if self in known else self.values([self])[0]


def _is_shared(module: nn.Module) -> TypeGuard[SharedValue]:
    return isinstance(module, SharedValue) and type(module).forward is SharedValue.forward


def values_at_once(modules: Iterable[SharedValue]) -> dict[nn.Module, Tensor]:
    """The value of each module, those of one kind from one batch."""
    found: dict[nn.Module, Tensor] = {}
    batches: dict[Hashable, list[SharedValue]] = {}
    for module in modules:
        if _is_shared(module):
            batches.setdefault((type(module), module.batch_key()), []).append(module)
        else:
            found[module] = module()
    for members in batches.values():
        found |= zip(members, members[0].values(members), strict=True)
    return found


def shared_values_of(root: nn.Module) -> dict[nn.Module, Tensor]:
    """The present values of all modules in ``root`` that have one."""
    return values_at_once(module for module in all_modules(root) if _is_shared(module))


@contextmanager
def shared(values: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Inside, and without gradients, these modules return these values."""
    outer = _known()
    _running.known = values
    try:
        yield
    finally:
        _running.known = outer


def _known() -> dict[nn.Module, Tensor]:
    return getattr(_running, "known", {})
