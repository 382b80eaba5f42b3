"""Leaves whose input the reversible engine saves instead of rebuilding it."""

from __future__ import annotations

from torch import nn

from ..module import InvertibleModule, all_modules


def keep_input(part: nn.Module, keep: bool = True) -> None:
    """Let ``backprop='reversible'`` save the input of a leaf, or of each leaf of a tree.

    Costs one state each. The leaf's inverse is not needed then, and rounding errors of the leaves behind it end
    there: the leaves before it start from the exact state again. Gradients, parameters and names stay the same.
    """
    for module in part.modules():
        if isinstance(module, InvertibleModule):
            module._keeps_input = keep


def keeps_input(leaf: InvertibleModule) -> bool:
    """Whether the engine saves the input of this leaf. An `Inverse` does if what it inverts does."""
    return any(isinstance(module, InvertibleModule) and module._keeps_input for module in all_modules(leaf))
