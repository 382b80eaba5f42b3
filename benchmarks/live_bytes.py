"""Counting the bytes of live tensors while code runs, on any device, exactly."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside, follows every storage that an operation makes until it is freed.

    Counted are what torch's operations return; a kernel's own scratch memory is not. Tensors made before do not count.

    Attributes:
        peak: the largest number of bytes alive after any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    @property
    def now(self) -> int:
        """Bytes alive; a storage that was resized counts with its present size."""
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
