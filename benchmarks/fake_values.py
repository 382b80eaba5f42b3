"""Run a step on fake CUDA tensors, which have shapes but no values, to count its bytes without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

# Private, and imported here only: torch has no public name for it.
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode

from benchmarks.live_bytes import LiveBytes
from benchmarks.python_backward import PythonBackward
from src.invertible import RngState, Snapshot

# With its index, since torch would ask the driver for the current one.
DEVICE = torch.device("cuda:0")


@contextmanager
def fake_values(mode: FakeTensorMode) -> Iterator[None]:
    """Within this context, a network of fake CUDA tensors can be trained, by the rules of CUDA's autocast.

    These differ from the CPU's: `torch.nn.functional.group_norm`, for example, computes and returns float32. Fake
    values cannot be compared, so the checks for changes between forward and backward are switched off, and nothing is
    drawn at random.
    """
    replaced = (
        patch.object(RngState, "__eq__", lambda *_: True),
        patch.object(Snapshot, "refuse_changes", lambda *_: None),
        # `PythonBackward` keeps what nodes save by hooks, which here keep nothing for longer than torch would.
        patch("src.models.fused.graph_is_watched", lambda: False),
        *present_cuda(),
    )
    with ExitStack() as stack:
        for context in (mode, *replaced, PythonBackward().installed()):
            stack.enter_context(context)
        yield


def present_cuda() -> tuple[Any, ...]:
    """Patches by which autocast and the engine believe that there is a GPU."""
    return (
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda *_: True),
        patch("torch.cuda.get_rng_state", lambda *_: torch.zeros(16, dtype=torch.uint8)),
    )


def bytes_of_a_fake_step(net: nn.Module, shape: Sequence[int], loss: Callable[[Tensor], Tensor]) -> tuple[int, int]:
    """Return the bytes that forward keeps for backward, and the peak of live bytes in a step, without the weights.

    The peak includes the gradients of the weights, but not the image or the scratch memory of kernels. Fake tensors
    replace the network's parameters and buffers.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(net, mode)
    with fake_values(mode):
        x = torch.zeros(*shape, device=DEVICE)
        with LiveBytes() as live:
            found = loss(x)
            kept = live.now
            found.backward()
    return kept, live.peak


def make_fake(net: nn.Module, mode: FakeTensorMode) -> None:
    """Replace a network's parameters and buffers by fake CUDA tensors."""

    def fake(tensor: Tensor) -> Tensor:
        return mode.from_tensor(tensor.detach()).to(DEVICE)

    with mode:
        for module in net.modules():
            parameters = {n: p for n, p in module._parameters.items() if p is not None}
            module._parameters.update({n: nn.Parameter(fake(p), p.requires_grad) for n, p in parameters.items()})
            module._buffers.update({n: fake(b) for n, b in module._buffers.items() if b is not None})
