"""Which tensors the engine may overwrite: those whose memory nobody else can see."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..module import Inverse, InvertibleModule, State, tensors_of

_running = threading.local()


def owned(tensor: Tensor) -> Tensor:
    """The tensor, if it fills its memory and nobody else holds that; otherwise a clone."""
    return tensor if _is_alone(tensor) else tensor.clone()


def owned_like(state: Tensor, grad: Tensor) -> Tensor:
    """The gradient as `owned`, but laid out in memory as the state."""
    if grad.stride() == state.stride() and grad.dtype == state.dtype:
        return owned(grad)
    return torch.empty_like(state).copy_(grad)


def compact(tensor: Tensor) -> Tensor:
    """The tensor itself, or a clone if it is a view that would keep more memory than its own."""
    return tensor if is_compact(tensor) else tensor.clone()


def memory_of(tensor: Tensor) -> int:
    """The same number for tensors in the same memory, also for fake ones."""
    return tensor.untyped_storage()._cdata


def share_memory(tensors: Iterable[Tensor | None]) -> bool:
    """Whether any two of these tensors lie in one memory, or may do so, for a sparse one among them."""
    try:
        memories = [memory_of(tensor) for tensor in tensors if tensor is not None]
    except NotImplementedError:
        return True
    return len(set(memories)) < len(memories)


def repeats_numbers(tensor: Tensor | None) -> bool:
    """Whether several numbers of a tensor have one place, as `torch.Tensor.expand` makes them."""
    return _is_dense(tensor) and 0 in tensor.stride() and not is_nested(tensor.shape, tensor.stride())


def apart(tensors: Iterable[Tensor | None], held: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Tensors that may be overwritten one by one: a clone of each that shares numbers with one before it, with one that
    is held, or among its own places."""
    taken: dict[int, list[Tensor]] = {}
    for tensor in held:
        if _is_dense(tensor):
            taken.setdefault(memory_of(tensor), []).append(tensor)
    own: list[Tensor | None] = []
    for tensor in tensors:
        if _is_dense(tensor):
            others = taken.setdefault(memory_of(tensor), [])
            if repeats_numbers(tensor) or not all(_are_pieces(tensor, other) for other in others):
                tensor = tensor.clone()
            else:
                others.append(tensor)
        own.append(tensor)
    return own


def _is_dense(tensor: Tensor | None) -> TypeGuard[Tensor]:
    """False for a missing one, and for a sparse one, which nobody overwrites."""
    return tensor is not None and tensor.layout is torch.strided


def _are_pieces(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in one memory are pieces of a larger one, as `torch.split` makes them: they share nothing."""
    first, second = sorted((a, b), key=Tensor.storage_offset)
    distance = second.storage_offset() - first.storage_offset()
    if a.dtype != b.dtype or a.stride() != b.stride():
        return False
    for dim, stride in enumerate(a.stride()):
        shift = int(distance // stride) if stride else 0
        if shift * stride == distance and shift >= first.shape[dim]:
            whole = [max(sizes) for sizes in zip(first.shape, second.shape, strict=True)]
            whole[dim] = shift + second.shape[dim]
            if is_nested(whole, a.stride()):
                return True
    return False


def is_nested(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether each stride steps over all that those below it reach, so that no two numbers have one place."""
    reach = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride < reach:
            return False
        reach = stride * size
    return True


@contextmanager
def handed_over(part: InvertibleModule, state: State) -> Iterator[None]:
    """Inside, a part may overwrite the state that it is called with, as far as nobody else can see it.

    The state's tensors must be the caller's own, not those of another: a tensor of one's own has no second name in
    Python, so that each further holder of its memory counts. The part must say in its own class that it asks, by
    ``overwrites_input``; a subclass may still read its input after ``super().forward``. Nothing is overwritten where
    hooks or a watcher of the part may keep its input.
    """
    outer = getattr(_running, "given", None)
    layer = part.module if isinstance(part, Inverse) else part
    is_given = type(layer).__dict__.get("overwrites_input", False) and not (_is_watched(part) or _is_watched(layer))
    _running.given = (layer, tensors_of(state)) if is_given else None
    try:
        yield
    finally:
        _running.given = outer


def may_overwrite(layer: InvertibleModule, tensor: Tensor) -> bool:
    """Whether the layer may overwrite this tensor, which it was called with; asked before it makes views of it."""
    given = getattr(_running, "given", None)
    return given is not None and given[0] is layer and any(tensor is part for part in given[1]) and _is_alone(tensor)


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks of these modules, or of all that there are, see what they read, return or get back."""
    inside = any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules
    )
    return inside or nn.modules.module._has_any_global_hook()


def _is_watched(part: InvertibleModule) -> bool:
    """Whether something from outside sees the input of a part."""
    watchers = (part._forward_hooks, part._forward_pre_hooks, part.watcher, "forward" in part.__dict__)
    return any(watchers) or nn.modules.module._has_any_global_hook()


def _is_alone(tensor: Tensor) -> bool:
    return is_compact(tensor) and _has_one_holder(tensor)


def is_compact(tensor: Tensor) -> bool:
    """Whether a tensor fills its memory."""
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _has_one_holder(tensor: Tensor) -> bool:
    """Whether a tensor that no caller has seen is the only one in its memory; False if torch does not tell."""
    holders = getattr(torch._C, "_storage_Use_Count", None)
    if holders is None or is_traceable_wrapper_subclass(tensor):  # whose memory is that of the tensors inside
        return False
    storage = tensor.untyped_storage()
    return holders(storage._cdata) == 2  # the tensor and `storage`
