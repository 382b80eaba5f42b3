"""What each block of an invertible network costs: parameters, saved bytes under every policy, time, exactness.

A block is a leaf of the network's invertible trees. `report` turns the result into text and a picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..engine.policies import POLICIES, invertible_roots, set_backprop
from ..engine.replay import Buffers
from ..engine.reversible import run_leaves
from ..left_as_found import left_as_found
from ..module import (
    FORWARD,
    INVERSE,
    Condition,
    Inverse,
    InvertibleModule,
    State,
    all_modules,
    map_tensors,
    past_policies,
    tensors_of,
)
from .calls import FirstCalls, TreeCall
from .reconstruction import LeafNames, reconstruction_errors
from .saved_bytes import saved_by_block


@dataclass
class Block:
    """One block, measured on the state that reaches it.

    Attributes:
        name: its name in the network; with ``⁻¹`` where the network runs it backwards.
        kind: its class.
        shapes: of the tensors of its input, with the batch dimension.
        num_parameters: all of them, trained or not.
        forward_s, inverse_s: seconds without gradients.
        backward_s: seconds of the backward pass alone, under ``stored`` and ``reversible``.
        own_error: relative ℓ2 error of its inverse on its exact output.
        rebuilt_error: the same from the states that a walk back from the network's output rebuilds.
        saved_bytes: by policy: what the network's graph keeps for the backward pass inside this block or as its input;
            of the last block also its output.
    """

    name: str
    kind: str
    shapes: list[tuple[int, ...]]
    num_parameters: int
    forward_s: float
    inverse_s: float
    backward_s: dict[str, float]
    own_error: float
    rebuilt_error: float
    saved_bytes: dict[str, int] = field(default_factory=dict)


@dataclass
class Inspection:
    """All blocks in the order of the forward pass, and what belongs to none.

    Attributes:
        elsewhere_bytes: by policy: saved by layers that are not invertible, or between blocks.
        num_parameters: of the whole network.
        elsewhere_parameters: those outside its invertible parts.
        input_bytes: size of the network's input.
    """

    blocks: list[Block]
    elsewhere_bytes: dict[str, int]
    num_parameters: int
    elsewhere_parameters: int
    input_bytes: int

    def total_bytes(self, policy: str) -> int:
        """What the whole network keeps for the backward pass."""
        return self.elsewhere_bytes[policy] + sum(block.saved_bytes[policy] for block in self.blocks)


def inspect(
    net: nn.Module,
    x: State,
    condition: Condition = None,
    *,
    policies: Sequence[str] = tuple(POLICIES),
    repeats: int = 3,
) -> Inspection:
    """Measure every block of a network, which has at least one invertible part, while it maps ``x``.

    The network is as before afterwards: a layer that starts from its first batch still awaits it. It need not be in
    evaluation mode.

    Args:
        net: the network.
        x: the input, on the network's device.
        condition: of the network, its second argument; None for a network that takes none.
        policies: those to compare.
        repeats: evaluations of which a time is the mean.

    Raises:
        ValueError: for a network without an invertible part, or an unknown policy.
    """
    names = LeafNames(net)
    policies_before = [(m, m.backprop_policy) for m in net.modules() if isinstance(m, InvertibleModule)]
    if not policies_before:
        raise ValueError(f"expected a network with an invertible part, got {type(net).__name__}")
    arguments = (x,) if condition is None else (x, condition)
    blocks: list[Block] = []
    elsewhere = {}
    try:
        with left_as_found(net), Buffers(all_modules(net)).replayed():
            for call in _calls(net, arguments):
                blocks += _measure_blocks(call, names, repeats)
            for policy in policies:
                set_backprop(net, policy)
                saved = saved_by_block(net, arguments, names)
                for block in blocks:  # one that is used twice counts where it is used first
                    block.saved_bytes[policy] = saved.pop(block.name, 0)
                elsewhere[policy] = sum(saved.values())
    finally:
        for module, before in policies_before:
            module.backprop_policy = before
    inside = {id(p) for root in invertible_roots(net).values() for p in root.parameters()}
    return Inspection(
        blocks,
        elsewhere,
        num_parameters=sum(p.numel() for p in net.parameters()),
        elsewhere_parameters=sum(p.numel() for p in net.parameters() if id(p) not in inside),
        input_bytes=sum(part.numel() * part.element_size() for part in tensors_of(x)),
    )


def _calls(net: nn.Module, arguments: tuple[Any, ...]) -> list[TreeCall]:
    watch = FirstCalls(net)
    try:
        with torch.no_grad():
            net(*arguments)
    finally:
        found = watch.close()
    return found


def _measure_blocks(call: TreeCall, names: LeafNames, repeats: int) -> list[Block]:
    condition = call.condition
    errors = iter(reconstruction_errors(call.tree, call.x, condition))
    blocks: list[Block] = []

    def measured(leaf: InvertibleModule, state: State) -> State:
        error = next(errors)
        with torch.no_grad():
            y = FORWARD(leaf, state, condition)
            forward_s = _seconds(lambda: FORWARD(leaf, state, condition), repeats)
            inverse_s = _seconds(lambda: INVERSE(leaf, y, condition), repeats)
        blocks.append(
            Block(
                name=names(leaf),
                kind=_kind(leaf),
                shapes=[tuple(part.shape) for part in tensors_of(state)],
                num_parameters=sum(p.numel() for p in leaf.parameters()),
                forward_s=forward_s,
                inverse_s=inverse_s,
                backward_s={p: _backward_s(leaf, state, condition, p, repeats) for p in ("stored", "reversible")},
                own_error=error.own,
                rebuilt_error=error.rebuilt,
            )
        )
        return y

    with past_policies():
        run_leaves(call.tree, call.x, measured)
    return blocks


def _kind(leaf: InvertibleModule) -> str:
    return f"Inverse({_kind(leaf.module)})" if isinstance(leaf, Inverse) else type(leaf).__name__


def _backward_s(leaf: InvertibleModule, x: State, condition: Condition, policy: str, repeats: int) -> float:
    x = map_tensors(lambda part: part.detach().requires_grad_(), x)
    run = POLICIES[policy] or (lambda leaf, call, x, condition: call(leaf, x, condition))
    with torch.enable_grad():
        y = run(leaf, FORWARD, x, condition if leaf.takes_condition else None)
    outputs = [part for part in tensors_of(y) if part.requires_grad]
    inputs = [*tensors_of(x), *(p for p in leaf.parameters() if p.requires_grad)]
    grads = [torch.ones_like(part) for part in outputs]
    return _seconds(lambda: torch.autograd.grad(outputs, inputs, grads, retain_graph=True, allow_unused=True), repeats)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    from torch.utils.benchmark import Timer  # imports setuptools and looks for compilers

    timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    return timer.timeit(repeats).mean
