"""What is stored for the backward pass of an invertible network, chosen from outside with `set_backprop`.

- ``stored``: plain autograd; every activation is stored.
- ``reversible``: the output of the whole tree only; see `reversible.py`.
- ``checkpoint``: the input of every leaf of the tree, through `torch.utils.checkpoint`.
- ``memcnn``: `memcnn.InvertibleModuleWrapper` around every leaf.

Parameters, their names, the loss and the gradients are the same under each.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from torch import nn

from .module import Condition, InvertibleModule, State, evaluate, past_policies
from .replay import FrozenStatistics
from .reversible import reversible, run_with_logdet


def _read_method(root: InvertibleModule, method: str) -> tuple[InvertibleModule, bool]:
    """The tree that an entry point of a root evaluates, and whether it asks for the log-determinant."""
    return root.inverted() if method.startswith("inverse") else root, method.endswith("and_logdet")


def _reversible(root: InvertibleModule, method: str, x: State, condition: Condition) -> Any:
    return reversible(*_read_method(root, method), x, condition)


class _PerLeaf:
    """A policy that treats each leaf of a tree by itself: ``wrap(leaf, method, x, condition)``."""

    def __init__(self, wrap: Callable[[InvertibleModule, str, State, Condition], Any]) -> None:
        self._wrap = wrap

    def __call__(self, root: InvertibleModule, method: str, x: State, condition: Condition) -> Any:
        def call(leaf: InvertibleModule, leaf_method: str, state: State) -> Any:
            return self._wrap(leaf, leaf_method, state, condition if leaf.takes_condition else None)

        tree, with_logdet = _read_method(root, method)
        with past_policies():
            y, logdet = run_with_logdet(tree, x, with_logdet, call)
        return (y, logdet) if with_logdet else y


def _checkpointed(leaf: InvertibleModule, method: str, x: State, condition: Condition) -> Any:
    def run(state: State, condition: Condition) -> Any:
        with past_policies():
            return evaluate(leaf, method, state, condition)

    return torch.utils.checkpoint.checkpoint(
        run, x, condition, use_reentrant=False, context_fn=lambda: (nullcontext(), FrozenStatistics(leaf))
    )


def _memcnn(leaf: InvertibleModule, method: str, x: State, condition: Condition) -> Any:
    from .memcnn_policy import wrapped_by_memcnn  # memcnn imports torchvision: only where it is asked for

    return wrapped_by_memcnn(leaf, method, x, condition)


# Spelled out, so that a configuration can be judged from the source alone.
PolicyName = Literal["reversible", "stored", "checkpoint", "memcnn"]
POLICIES = {
    "reversible": _reversible,
    "stored": None,
    "checkpoint": _PerLeaf(_checkpointed),
    "memcnn": _PerLeaf(_memcnn),
}


def invertible_roots(net: nn.Module) -> dict[str, InvertibleModule]:
    """The largest invertible parts of a network, by name."""
    roots: dict[str, InvertibleModule] = {}

    def search(module: nn.Module, name: str) -> None:
        if isinstance(module, InvertibleModule):
            roots[name] = module
            return
        for child_name, child in module.named_children():
            search(child, f"{name}.{child_name}".lstrip("."))

    search(net, "")
    return roots


def set_backprop(net: nn.Module, policy: str) -> None:
    """Set how the invertible parts of ``net`` are backpropagated through; other parts stay as they are.

    Raises:
        ValueError: for an unknown policy.
    """
    if policy not in POLICIES:
        raise ValueError(f"expected backprop to be one of {', '.join(POLICIES)}, got {policy!r}")
    for module in net.modules():
        if isinstance(module, InvertibleModule):
            module.backprop_policy = None
    for root in invertible_roots(net).values():
        root.bijection.backprop_policy = POLICIES[policy]
