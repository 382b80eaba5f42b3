"""Tensors and modes of a network during its forward pass, restored while backward evaluates it again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..module import all_modules
from .bit_sums import bit_sums


class _Table(NamedTuple):
    """The parameters or the constant buffers of one module: the table that torch reads, what stood in it, aliases."""

    module: nn.Module
    present: dict[str, Tensor | None]
    used: dict[str, Tensor | None]
    aliased: dict[str, Tensor | None]


def leaf_alias(tensor: Tensor) -> Tensor:
    """A leaf of the graph in the memory of the tensor, without its hooks."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


class Snapshot:
    """The parameters, constant buffers and modes (training or evaluation) of a module, as they are now.

    Between the forward and the backward pass a caller may exchange tensors (`torch.func.functional_call`,
    ``load_state_dict(assign=True)``, a new `torch.nn.Parameter`) or switch a part to evaluation. Inside `reused` the
    module is as it was. A tensor that was overwritten in place is lost: `refuse_overwritten` and `refuse_changes` name
    it. Buffers that a module may move belong to `replay.LeafStart`.

    Args:
        root: the module, with all inside it.
        alias: makes what stands in for a tensor inside `reused`. It is another tensor, so that the hooks of a parameter
            do not see its gradient part by part, but once and whole, when backward hands it over.

    Raises:
        RuntimeError: from `refuse_overwritten` and `refuse_changes`, with the name of a tensor that was changed in
            place.

    Example:
        >>> layer = ActNorm(4)
        >>> snapshot, _ = Snapshot(layer), layer.eval()
        >>> with snapshot.reused():
        ...     layer.training
        True
    """

    def __init__(self, root: nn.Module, alias: Callable[[Tensor], Tensor] = leaf_alias) -> None:
        self._root = root
        self._modules = all_modules(root)
        self._modes = [module.training for module in self._modules]
        aliases: dict[Tensor, Tensor] = {}
        self._tables: list[_Table] = []
        for module in self._modules:
            for table in _tables(module):
                for tensor in table.values():
                    if tensor is not None and tensor not in aliases:
                        aliases[tensor] = alias(tensor)
                aliased = {name: None if tensor is None else aliases[tensor] for name, tensor in table.items()}
                self._tables.append(_Table(module, table, dict(table), aliased))
        self.originals = {stand_in: tensor for tensor, stand_in in aliases.items()}
        self.mark()

    def mark(self) -> None:
        """Record the present values as those that must not change, even if a first batch has moved them in memory."""
        for stand_in, tensor in self.originals.items():
            if stand_in.data_ptr() != tensor.data_ptr():
                stand_in.data = tensor.data
        self._versions = [tensor._version for tensor in self.originals.values()]
        self._bit_sums = bit_sums(self.originals)

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Inside, the module is as it was, its tensors replaced by their aliases; afterwards it is as before."""
        modes, tables = [module.training for module in self._modules], [dict(t.present) for t in self._tables]
        try:
            _set_modes(self._modules, self._modes)
            for table in self._tables:
                _fill(table.present, table.aliased)
            yield
        finally:
            _set_modes(self._modules, modes)
            for table, before in zip(self._tables, tables, strict=True):
                _fill(table.present, before)

    def refuse_overwritten(self) -> None:
        """Refuse changes that can be detected without reading values.

        Raises:
            RuntimeError: if a part was exchanged, or a tensor's version counter says that it was overwritten.
        """
        if all_modules(self._root) != self._modules:
            raise RuntimeError(
                f"expected the modules of this {type(self._root).__name__} to stay the same between forward and "
                "backward, got one that was replaced, added or removed"
            )
        versions = [tensor._version for tensor in self.originals.values()]
        self._refuse([now != before for now, before in zip(versions, self._versions, strict=True)])

    def refuse_changes(self) -> None:
        """Refuse changed values. It waits for the GPU, so call it once the work there is queued.

        Torch's fused optimizers and writes through ``.data`` leave the version counters as they are.

        Raises:
            RuntimeError: if the values of a tensor are not those of the forward pass.
        """
        now, before = bit_sums(self.originals), self._bit_sums
        if now is not None and before is not None and not torch.equal(now, before):
            self._refuse((now != before).tolist())

    def _refuse(self, changed: list[bool]) -> None:
        if any(changed):
            tensor = next(t for t, is_changed in zip(self.originals.values(), changed, strict=True) if is_changed)
            raise RuntimeError(
                f"expected {self._name(tensor)!r} to keep its values between forward and backward, but it was "
                "changed in place; states can only be rebuilt with the values of the forward pass"
            )

    def _name(self, tensor: Tensor) -> str:
        prefixes = {module: f"{name}." if name else "" for name, module in self._root.named_modules()}
        return next(
            prefixes[table.module] + name
            for table in self._tables
            for name, used in table.used.items()
            if used is tensor
        )


def _tables(module: nn.Module) -> Iterator[dict[str, Any]]:
    if module._parameters:
        yield module._parameters
    if module._buffers and getattr(module, "buffers_are_constants", False):
        yield module._buffers


def _fill(table: dict[str, Tensor | None], content: dict[str, Tensor | None]) -> None:
    table.clear()
    table.update(content)


def _set_modes(modules: Iterable[nn.Module], modes: Iterable[bool]) -> None:
    for module, mode in zip(modules, modes, strict=True):
        if module.training != mode:
            module.training = mode
