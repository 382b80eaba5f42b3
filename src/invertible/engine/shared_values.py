"""Values that layers of a tree compute from parameters alone: once per pass, and those of one kind in one batch."""

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
    """A module without input, whose value the engine computes once per pass.

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


@contextmanager
def shared_values(root: nn.Module) -> Iterator[None]:
    """Inside, and without gradients, the modules in ``root`` return values that are computed here, once."""
    outer = _known()
    _running.known = values_at_once(module for module in all_modules(root) if _is_shared(module))
    try:
        yield
    finally:
        _running.known = outer


def _known() -> dict[nn.Module, Tensor]:
    return getattr(_running, "known", {})
