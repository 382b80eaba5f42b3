"""Modules are as before after they were evaluated only to look at them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .module import all_modules


@contextmanager
def left_as_found(net: nn.Module) -> Iterator[None]:
    """Afterwards, parameters and buffers are as before, and layers that start from their first batch still await it.

    Whether they have started is a buffer, or a flag in Python.
    """
    flags = [(vars(m), {k: v for k, v in vars(m).items() if isinstance(v, bool)}) for m in all_modules(net)]
    tensors = [*net.parameters(), *net.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        for attributes, values in flags:
            attributes.update(values)
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
