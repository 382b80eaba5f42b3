"""Count exactly the bytes of live tensors while code runs, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within this context, tracks every storage that an operation creates until it is freed.

    Only the results of torch's operations count, not the scratch memory of kernels and not tensors that existed before.

    Attributes:
        peak: the largest number of bytes alive after any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def now(self) -> int:
        """Bytes alive now; a resized storage counts with its present size."""
        storages = (reference() for reference in list(self._alive.values()))
        return sum(storage.nbytes() for storage in storages if storage is not None)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        known = {part.untyped_storage()._cdata for part in tree_leaves(args) if isinstance(part, Tensor)}
        result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, Tensor) and part.untyped_storage()._cdata not in known:
                self._follow(part.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        self._alive[key] = weakref.ref(storage, lambda _: self._alive.pop(key, None))
