"""Evaluating a layer again exactly as it was evaluated before: same random draws, same buffers, none of them moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ..module import State
from .bit_sums import bit_sums
from .layouts import Layout


class RngState:
    """The states of the random generators that a layer on ``device`` may draw from.

    Args:
        device: of the layer; generators of the CPU are always among them.

    Example:
        >>> state, first = RngState(torch.device("cpu")), torch.rand(3)
        >>> with state.replayed():
        ...     torch.equal(torch.rand(3), first)
        True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RngState):
            return NotImplemented
        same_cuda = self._cuda is None or other._cuda is None or torch.equal(self._cuda, other._cuda)
        return torch.equal(self._cpu, other._cpu) and same_cuda

    __hash__ = None  # type: ignore[assignment]

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self.device)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, random draws repeat those made from this state on; afterwards the generators go on undisturbed."""
        outer = RngState(self.device)
        self.restore()
        try:
            yield
        finally:
            outer.restore()


class Buffers:
    """The buffers of modules with their present values, except in modules that set ``buffers_are_constants``."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        tables = (m._buffers for m in modules if m._buffers and not getattr(m, "buffers_are_constants", False))
        self._copies = [(table, _cloned(table)) for table in tables]

    def __bool__(self) -> bool:
        return bool(self._copies)

    def replace_where(self, condition: Tensor) -> None:
        """Take the present values instead if the condition holds, without waiting for a GPU to compute it."""
        for table, copies in self._copies:
            for name, before in copies.items():
                now = table.get(name)
                if before is not None and now is not None and (now.shape, now.dtype) == (before.shape, before.dtype):
                    copies[name] = torch.where(condition.to(now.device), now.detach(), before)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, buffers start from these values; afterwards the modules have the buffers that they had before."""
        present = [dict(table) for table, _ in self._copies]
        try:
            for table, copies in self._copies:
                table.update(_cloned(copies))
            yield
        finally:
            for (table, _), before in zip(self._copies, present, strict=True):
                table.clear()
                table.update(before)


def _cloned(table: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if buffer is None else buffer.detach().clone() for name, buffer in table.items()}


class LeafStart:
    """The state from which the evaluation of a leaf starts: the random generators, and the buffers that it may change.

    Args:
        modules: the leaf and all inside it.
        device: of its state.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._rng: RngState | None = RngState(device)
        self._buffers = Buffers(modules)
        self._parameters = (
            [p for m in modules for p in m._parameters.values() if p is not None] if self._buffers else []
        )
        self._bit_sums = bit_sums(self._parameters)
        self._layout: Layout | None = None

    @property
    def draws(self) -> bool:
        """Whether the evaluation draws random numbers, once it has settled."""
        return self._rng is not None

    def settle(self, x: State = None) -> LeafStart | None:
        """Called after the evaluation: what a replay needs, or None if the leaf draws nothing and has no such buffers.

        A replay from a rebuilt input needs the memory layout of the leaf's input ``x`` as well, see `laid_out`.

        A leaf that set parameters from its first batch, as activation normalisation does, must not do so again: its
        replays start from the buffers that it left behind, which say that this is done.
        """
        assert self._rng is not None
        if self._rng == RngState(self._rng.device):
            self._rng = None
        elif x is not None:
            self._layout = Layout.of(x)
        if self._bit_sums is not None:
            now = bit_sums(self._parameters)
            assert now is not None
            self._buffers.replace_where((now != self._bit_sums).any())
        self._parameters, self._bit_sums = [], None
        return self if self._buffers or self._rng else None

    def laid_out(self, state: State) -> State:
        """A state of the shape of the leaf's input, in its layout if the leaf drew numbers in the order of memory."""
        return self._layout.restored(state) if self._layout else state

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, the leaf starts from there; afterwards generators and buffers are as before."""
        with self._buffers.replayed(), self._rng.replayed() if self._rng else nullcontext():
            yield


def laid_out(start: LeafStart | None, state: State) -> State:
    """A state as `LeafStart.laid_out`, or as it is if there is nothing to repeat."""
    return start.laid_out(state) if start else state


def replayed(start: LeafStart | None) -> AbstractContextManager[None]:
    """The context of a start, or none if there is nothing to repeat."""
    return start.replayed() if start else nullcontext()


class AutocastState:
    """Autocast as it is now on a device type, to be entered again during backward."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._dtype = torch.get_autocast_dtype(device_type)
        self._enabled = torch.is_autocast_enabled(device_type)

    def __call__(self) -> torch.autocast:
        # Without the cache: it would keep weights cast without a graph, and hand them to later calls that need one.
        return torch.autocast(self._device_type, self._dtype, self._enabled, cache_enabled=False)
