"""Autocast around modules of FrEIA: half precision inside their subnets, and nowhere else, as in our own layers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .engine.replay import AutocastState
from .module import in_single_precision


@contextmanager
def autocast_in_subnets_only(module: nn.Module, device_type: str) -> Iterator[None]:
    """Inside, autocast is off but in the subnets of a FrEIA module, whose outputs are widened to float32.

    The matrix products of `HouseholderPerm` and others would give states in half precision, and their inverses would
    not come back to the same states.
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    autocast = AutocastState(device_type)
    handles = [handle for subnet in _subnets(module) for handle in _evaluated_under(autocast, subnet)]
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _subnets(module: nn.Module) -> Iterator[nn.Module]:
    """What is inside of FrEIA's modules, and of the nets and lists that hold them, without being one of them."""
    for child in module.children():
        if hasattr(child, "dims_in") or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _subnets(child)
        else:
            yield child


def _evaluated_under(autocast: AutocastState, subnet: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks that turn autocast on for a subnet, and off again, whether it returns or raises."""
    stack = ExitStack()

    def enter(*unused: Any) -> None:
        stack.enter_context(autocast())

    def leave(subnet: nn.Module, args: Any, output: Any) -> Any:
        output = in_single_precision(output) if isinstance(output, Tensor) else output
        stack.close()
        return output

    # Around the hooks of others, which see what they do without ours.
    return (
        subnet.register_forward_pre_hook(enter, prepend=True),
        subnet.register_forward_hook(leave, always_call=True),
    )
