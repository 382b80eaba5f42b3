"""What the invertible trees of a network are called with, noted from outside."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..engine.policies import invertible_roots
from ..module import Call, Condition, InvertibleModule, State, map_tensors


@dataclass
class TreeCall:
    """The bijection whose forward pass a call is, `inverted` where the inverse was called, and the call's arguments.

    The arguments are detached from the caller's graph.
    """

    tree: InvertibleModule
    x: State
    condition: Condition


class FirstCalls:
    """Notes the first call of each invertible tree of a network, from now until `close`.

    Trees are the bijections of `invertible_roots`: inside of a padding, which no inverse can restore.

    Args:
        is_watched: which of the trees; all of them by default.
    """

    def __init__(self, net: nn.Module, is_watched: Callable[[InvertibleModule], bool] = lambda tree: True) -> None:
        self._found: list[TreeCall] = []
        trees = [root.bijection for root in invertible_roots(net).values()]
        self._trees = [tree for tree in trees if is_watched(tree)]
        for tree in self._trees:
            tree.watcher = partial(self._note, tree)

    def close(self) -> list[TreeCall]:
        """Stop watching, and return the calls in their order; none, if called again."""
        for tree in self._trees:
            tree.watcher = None
        found, self._found, self._trees = self._found, [], []
        return found

    def _note(self, tree: InvertibleModule, call: Call, x: State, condition: Condition) -> None:
        tree.watcher = None
        x, condition = (map_tensors(torch.Tensor.detach, state) for state in (x, condition))
        self._found.append(TreeCall(call.tree(tree), x, condition))
