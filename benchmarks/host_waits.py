"""Count where the CPU waits for a GPU, and copies between the two."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_aten = torch.ops.aten
_QUESTIONS = {_aten.equal.default, _aten.is_nonzero.default, _aten._local_scalar_dense.default}
_ANY = {_aten.any.default, _aten.any.dim}
# Their results have a shape that depends on values, their errors are raised on the host, or they ask for a norm.
_WAITING = {
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten._linalg_check_errors.default,
    _aten.linalg_matrix_exp.default,
    _aten._linalg_eigh.default,
    _aten._linalg_svd.default,
}
_COPIES = {_aten._to_copy.default, _aten.copy_.default}


class HostWaits(TorchDispatchMode):
    """Within this context, notes each operation on CUDA tensors for which the CPU waits, on real or fake tensors.

    Enter it inside `fake_values`. Where code looks at values, all is assumed to be well: two tensors are equal, ``all``
    is true, ``any`` is false, and any other number is 1.

    Attributes:
        counts: how often, by operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._anys = WeakIdKeyDictionary()  # results of `any`

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [part for part in tree_leaves((args, kwargs)) if isinstance(part, Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        if func in _QUESTIONS:
            self.counts[str(func)] += on_gpu
            return self._answer(tensors[0])
        result = func(*args, **kwargs)
        if func in _ANY:
            self._anys[result] = True
        if func in _WAITING:
            self.counts[str(func)] += on_gpu
        elif func in _COPIES:
            source = tensors[-1]
            waits = not kwargs.get("non_blocking", False) and args[2:3] != (True,)
            self.counts[f"{func} from {source.device.type} to {result.device.type}"] += (
                waits and result.is_cuda != source.is_cuda
            )
        return result

    def _answer(self, asked: Tensor) -> bool | int | float:
        if asked.dtype == torch.bool or asked.numel() != 1:
            return asked not in self._anys
        return 1.0 if asked.is_floating_point() else 1
