"""Backpropagation from the output of an invertible tree alone (Gomez et al., 2017).

One autograd node stands for the whole tree. It walks the tree backwards from its output, which the node behind it saves
(`handover.py`), and rebuilds each part's input while it computes the gradients (`walk.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..composites import Composite, Sequential
from ..module import (
    FORWARD,
    FORWARD_AND_LOGDET,
    Call,
    Condition,
    InvertibleModule,
    Position,
    State,
    all_modules,
    as_tuple,
    in_single_precision,
    map_tensors,
    past_policies,
    tensors_of,
    zero_logdet,
)
from .attributes import Attribute, inputs_of, tensor_attributes
from .handover import Box, HandOver, refuse_transforms
from .ownership import compact, handed_over, memory_of, owned, owned_like
from .replay import AutocastState, LeafStart
from .shared_values import shared_values
from .snapshot import Snapshot
from .walk import BackwardWalk, expand


def keep_input(part: nn.Module, keep: bool = True) -> None:
    """Let ``backprop='reversible'`` save the input of a leaf, or of each leaf of a tree.

    Costs one state each. The leaf's inverse is not needed then, and rounding errors of the leaves behind it end
    there: the leaves before it start from the exact state again. Gradients, parameters and names stay the same.

    Args:
        part: a leaf or a tree.
        keep: False lets them rebuild their inputs again.

    Example:
        >>> block = ResidualBlock(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1))
        >>> keep_input(block)  # backward need not iterate to the block's input
    """
    for module in part.modules():
        if isinstance(module, InvertibleModule):
            module._keeps_input = keep


def keeps_input(leaf: InvertibleModule) -> bool:
    """Whether the engine saves the input of this leaf. An `Inverse` does if what it inverts does."""
    return _any_keeps_input(all_modules(leaf))


def _any_keeps_input(modules: Iterable[nn.Module]) -> bool:
    return any(isinstance(module, InvertibleModule) and module._keeps_input for module in modules)


def run_leaves(
    part: InvertibleModule,
    x: State,
    leaf_step: Callable[[InvertibleModule, State], State],
    *,
    overwrites: bool = False,
) -> State:
    """Evaluate a tree, with ``leaf_step(leaf, x)`` in the place of each leaf.

    With ``overwrites``, parts may overwrite states that nobody else can see, see `handed_over`.
    """
    x = map_tensors(in_single_precision, x)
    for piece in in_a_row(part):
        if overwrites:
            x = map_tensors(Tensor.detach, x)  # what a caller or a hook keeps is another tensor in this memory
        with handed_over(piece, x) if overwrites else nullcontext():
            if isinstance(piece, Composite):
                x = piece.run(x, lambda child, state: run_leaves(child, state, leaf_step, overwrites=overwrites))
            else:
                x = leaf_step(piece, x)
    return x


def in_a_row(part: InvertibleModule) -> Iterator[InvertibleModule]:
    """The parts of nested sequences, one after the other: no frame of an inner sequence then keeps a state alive."""
    part = expand(part)
    if isinstance(part, Sequential) and type(part).run is Sequential.run:
        for child in part:
            yield from in_a_row(child)
    else:
        yield part


def run_with_logdet(
    tree: InvertibleModule,
    x: State,
    with_logdet: bool,
    leaf_call: Callable[[InvertibleModule, Call, State], Any],
    *,
    overwrites: bool = False,
) -> tuple[State, Tensor]:
    """Output and log-determinant of a tree, zero if not asked for, with ``leaf_call(leaf, call, x)`` for each leaf."""
    total = zero_logdet(x)

    def leaf_step(leaf: InvertibleModule, state: State) -> State:
        nonlocal total
        if not with_logdet:
            return leaf_call(leaf, FORWARD, state)
        state, logdet = leaf_call(leaf, FORWARD_AND_LOGDET, state)
        total = total + logdet
        return state

    return run_leaves(tree, x, leaf_step, overwrites=overwrites), total


@dataclass
class _Forms:
    """How the flat tensors that autograd sees make up a call's state and condition, and the state that it returns."""

    arguments: TreeSpec
    result: TreeSpec | None = None  # known once the tree has run


class _Reversible(torch.autograd.Function):
    """A whole invertible tree as one node of the autograd graph. It finds output and gradients in the box."""

    @staticmethod
    def forward(
        ctx: Any,
        tree: InvertibleModule,
        with_logdet: bool,
        attributes: list[Attribute],
        forms: _Forms,
        box: Box,
        *tensors: Tensor,
    ) -> Any:
        num_arguments = forms.arguments.num_leaves
        x, condition = tree_unflatten(tensors[:num_arguments], forms.arguments)
        device = tensors_of(x)[0].device
        ctx.starts = []
        kept: list[State | None] = []

        def recorded(leaf: InvertibleModule, call: Call, state: State) -> Any:
            modules = all_modules(leaf)
            keeps = _any_keeps_input(modules)
            kept.append(map_tensors(lambda part: compact(part).detach(), state) if keeps else None)
            start = LeafStart(modules, device)
            result = call(leaf, state, condition)
            ctx.starts.append(start.settle(state))
            return result

        ctx.autocast = AutocastState(device.type)
        with past_policies(), ctx.autocast(), shared_values(tree):
            y, logdet = run_with_logdet(tree, x, with_logdet, recorded, overwrites=True)
        # An output that shares the caller's memory would change when the caller changes it.
        inputs = {memory_of(part) for part in tensors_of(x)}
        y = map_tensors(lambda part: part.clone() if memory_of(part) in inputs else part, y)
        ctx.tree, ctx.box, ctx.parameters = tree, box, tensors[num_arguments:]
        ctx.tracks = [part.requires_grad for part in tensors_of(condition)]
        ctx.snapshot = Snapshot(tree, attributes=attributes)
        saved, ctx.saved_form = tree_flatten((condition, kept))
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        outputs, forms.result = tree_flatten(y)
        ctx.state_form = forms.result
        return (*outputs, logdet) if with_logdet else tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *_: None) -> Any:
        ctx.snapshot.refuse_overwritten()
        condition, kept = tree_unflatten(ctx.saved_tensors, ctx.saved_form)
        # The condition as leaves of the graphs that backward builds, tracked where the caller tracks it.
        tracks = iter(ctx.tracks)
        condition = map_tensors(lambda part: part.detach().requires_grad_(next(tracks)), condition)
        position, grad_logdet = _start(ctx.state_form, *ctx.box.take())
        walk = BackwardWalk(ctx.starts, kept, grad_logdet, condition, ctx.snapshot)
        with past_policies(), ctx.autocast(), ctx.snapshot.reused(), torch.no_grad():
            with shared_values(ctx.tree):
                walk(ctx.tree, position)
            walk.finish()
        ctx.snapshot.refuse_lost(walk.gradients)
        ctx.snapshot.refuse_changes()
        grads_condition = [walk.gradients.get(part) for part in as_tuple(condition)]
        grads_parameters = [walk.gradients.get(parameter) for parameter in ctx.parameters]
        return (None, None, None, None, None, *as_tuple(position.grad), *grads_condition, *grads_parameters)


def _start(form: TreeSpec, states: list[Tensor], grads: list[Tensor | None]) -> tuple[Position, Tensor | None]:
    """States and gradients that rules may overwrite, and the gradient of the log-determinant."""
    state_grads = [None if grad is None else owned_like(y, grad) for y, grad in zip(states, grads, strict=False)]
    position = Position(tree_unflatten([owned(y) for y in states], form), tree_unflatten(state_grads, form))
    return position, grads[-1] if len(grads) > len(states) else None


def reversible(root: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    """The policy of this name: what a call returns, as one node of the graph."""
    refuse_transforms("reversible")
    tree = call.tree(root)
    modules = all_modules(tree)
    attributes = tensor_attributes(tree, modules)
    tensors, form = tree_flatten((x, condition))
    forms, box = _Forms(form), Box()
    inputs = (*tensors, *inputs_of(modules, attributes))
    outputs = _Reversible.apply(tree, call.logdet, attributes, forms, box, *inputs)
    assert forms.result is not None
    num_states = forms.result.num_leaves
    outputs = HandOver.apply(box, num_states, *outputs)
    y = tree_unflatten(outputs[:num_states], forms.result)
    return (y, outputs[-1]) if call.logdet else y
