"""How many bytes a network's graph keeps for the backward pass, and for which block."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ..composites import Composite
from ..engine.walk import expand
from ..module import InvertibleModule, State, map_tensors, tensors_of
from .reconstruction import LeafNames

ELSEWHERE = "elsewhere"


def kept_bytes(net: nn.Module, run: Callable[[], Any]) -> int:
    """Bytes of the distinct storages that autograd saves for the backward pass of ``run()``, those of ``net`` apart."""
    own = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # held, or a later storage could have the address of an earlier one
    del result
    return sum(kept.values())


def saved_by_block(net: nn.Module, arguments: tuple[Any, ...], names: LeafNames) -> dict[str, int]:
    """Bytes of the distinct storages, except parameters, that one forward pass keeps for the backward pass."""
    leaves = map_tensors(lambda part: part.clone().requires_grad_(), arguments[0])
    before = _live_storages()
    attribution = _Attribution(net, names)
    with attribution.recording():
        # A computed input, as behind another layer: memcnn takes no leaf of the graph.
        y = net(map_tensors(lambda part: part * 1.0, leaves), *arguments[1:])
        gc.collect()
        # memcnn keeps tensors outside autograd, which hooks do not see, but the garbage collector does.
        for storage in _live_storages().values():
            if StorageWeakRef(storage) not in before:
                attribution.save(storage)
    del y
    return attribution.bytes_by_block()


def _live_storages() -> dict[StorageWeakRef, torch.UntypedStorage]:
    # By class, since `isinstance` would wake lazy proxies.
    tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor) and o.layout == torch.strided]
    return {_memory(t): t.untyped_storage() for t in tensors}


def _memory(tensor: Tensor) -> StorageWeakRef:
    """The memory of a tensor. Unlike an address, it is not shared with a tensor made after this one was freed."""
    return StorageWeakRef(tensor.untyped_storage())


class _Attribution:
    """Attributes saved storages to the block that runs, else to the one that reads them, else to their maker."""

    def __init__(self, net: nn.Module, names: LeafNames) -> None:
        self._own = {_memory(t) for t in (*net.parameters(), *net.buffers())}
        self._names = names
        self._running: list[str] = []
        self._reader: dict[StorageWeakRef, str] = {}
        self._maker: dict[StorageWeakRef, str] = {}
        self._saved: dict[StorageWeakRef, tuple[torch.UntypedStorage, str | None]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Inside, listen to every block's start and end and to what autograd saves."""
        hooks = [
            nn.modules.module.register_module_forward_pre_hook(self._start),
            nn.modules.module.register_module_forward_hook(self._end),
        ]
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor):
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def save(self, storage: torch.UntypedStorage) -> None:
        """Count a storage that is kept."""
        memory = StorageWeakRef(storage)
        if memory not in self._own:
            self._saved.setdefault(memory, (storage, self._running[-1] if self._running else None))

    def bytes_by_block(self) -> dict[str, int]:
        """The saved bytes by name of the block, or `ELSEWHERE`."""
        found: dict[str, int] = {}
        for memory, (storage, running) in self._saved.items():
            name = running or self._reader.get(memory) or self._maker.get(memory, ELSEWHERE)
            found[name] = found.get(name, 0) + storage.nbytes()
        return found

    def _pack(self, tensor: Tensor) -> Tensor:
        self.save(tensor.untyped_storage())
        return tensor

    def _start(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if _is_block(module):
            self._running.append(self._names(module))  # type: ignore[arg-type]
            for part in tensors_of(args[0]):
                self._reader[_memory(part)] = self._running[-1]

    def _end(self, module: nn.Module, args: tuple[Any, ...], y: State) -> None:
        if _is_block(module):
            name = self._running.pop()
            for part in tensors_of(y):
                # An output that lies in its input's memory has another reader than the input.
                self._reader.pop(_memory(part), None)
                self._maker[_memory(part)] = name


def _is_block(module: nn.Module) -> bool:
    return isinstance(module, InvertibleModule) and not isinstance(module, Composite) and expand(module) is module
