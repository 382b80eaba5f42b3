"""Numbers on their way from a GPU to the host, for which nobody has to wait yet."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A copy of a tensor in host memory, which a GPU makes when it gets there.

    ``tensor.item()`` would wait for all work that is queued on the GPU and leave it idle afterwards.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._copy.copy_(tensor.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
        else:
            self._copy = tensor.detach().clone()

    def wait(self) -> Tensor:
        """The values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy
