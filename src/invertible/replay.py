"""Evaluating a layer again exactly as it was evaluated before: same random draws, no statistics moved."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .module import all_modules


class RngState:
    """The states of the random generators that a layer on ``device`` may draw from."""

    def __init__(self, device: torch.device) -> None:
        self.cpu: Tensor = torch.get_rng_state()
        self.cuda = (device, torch.cuda.get_rng_state(device)) if device.type == "cuda" else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RngState):
            return NotImplemented
        same_cuda = self.cuda is None or other.cuda is None or torch.equal(self.cuda[1], other.cuda[1])
        return torch.equal(self.cpu, other.cpu) and same_cuda

    __hash__ = None  # type: ignore[assignment]

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            device, state = self.cuda
            torch.cuda.set_rng_state(state, device)


class Replay:
    """Inside, random draws repeat those made from ``state`` on; afterwards the generators go on undisturbed."""

    def __init__(self, state: RngState | None) -> None:
        self._state = state

    def __enter__(self) -> None:
        if self._state is not None:
            device = self._state.cuda[0] if self._state.cuda else torch.device("cpu")
            self._outer = RngState(device)
            self._state.restore()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state is not None:
            self._outer.restore()


class AutocastState:
    """Autocast as it is now on a device type, to be entered again during backward."""

    def __init__(self, device_type: str) -> None:
        self._device_type = device_type
        self._dtype = torch.get_autocast_dtype(device_type)
        self._enabled = torch.is_autocast_enabled(device_type)

    def __call__(self) -> torch.autocast:
        # Without the cache: it would keep weights cast without a graph, and hand them to later calls that need one.
        return torch.autocast(self._device_type, self._dtype, self._enabled, cache_enabled=False)


class FrozenStatistics:
    """Inside, layers may move their statistics (batch norm's running mean); afterwards these are as before.

    So they move exactly once a step, in the forward pass, however often backward evaluates a layer. For this, all
    buffers are copied but those of modules that say ``buffers_are_constants``. A class, not a generator:
    `torch.utils.checkpoint` enters it again when a retained graph is used twice.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def __enter__(self) -> None:
        self._before = [
            (module, buffer, buffer._version, buffer.clone())
            for module in all_modules(self._root)
            if module.training and not getattr(module, "buffers_are_constants", False)
            for buffer in module._buffers.values()
            if buffer is not None
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module, buffer, version, value in self._before:
            # Norm layers move their buffers inside a kernel, which the version does not show.
            if buffer._version != version or isinstance(module, _NormBase):
                buffer.data.copy_(value)  # .data: graphs that saved the buffer must not count this as a change
