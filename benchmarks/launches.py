"""Count the operations that start kernels on a GPU, which take microseconds each however small their tensors are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
# They start no kernel, although their schema does not call them views.
_FREE = {_aten.detach.default, _aten._unsafe_view.default, _aten.empty.memory_format, torch.ops.prim.device.default}


class Launches(TorchDispatchMode):
    """Within this context, counts the operations on real or fake CUDA tensors that are not views.

    An operation may start several kernels, so these are lower bounds. Enter it inside `fake_values`.

    Attributes:
        counts: how often, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [part for part in tree_leaves((args, kwargs, result)) if isinstance(part, Tensor)]
        self.counts[str(func)] += func not in _FREE and not func.is_view and any(part.is_cuda for part in tensors)
        return result
