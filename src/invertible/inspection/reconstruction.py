"""How exactly ``backprop='reversible'`` rebuilds the states inside a tree, leaf by leaf."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..composites import Composite
from ..engine.replay import Buffers, LeafStart, RngState, laid_out, replayed
from ..engine.reversible import keeps_input, run_leaves
from ..engine.walk import expand
from ..left_as_found import left_as_found
from ..module import (
    FORWARD,
    INVERSE,
    Condition,
    Inverse,
    InvertibleModule,
    Position,
    State,
    all_modules,
    map_tensors,
    past_policies,
    tensors_of,
)


@dataclass
class LeafError:
    """The accuracy lost by walking back through one leaf: relative ℓ2 errors of the rebuilt input's worst sample.

    Attributes:
        leaf: the leaf; possibly the `Inverse` of a part of the tree.
        rebuilt: error of the input as backward rebuilds it, from the states that the leaves behind it left.
        own: error from the leaf's exact output, its own share.
    """

    leaf: InvertibleModule
    rebuilt: float
    own: float


def relative_errors(found: State, expected: State) -> Tensor:
    """``‖found − expected‖ / ‖expected‖`` of each sample (B,), ℓ2 norms over all tensors of a state, in float64.

    Of a sample whose expected numbers are all zero, it is the norm of the difference.
    """
    pairs = [(a.double(), b.double()) for a, b in zip(tensors_of(found), tensors_of(expected), strict=True)]
    difference, norm = (_norms(parts) for parts in zip(*((a - b, b) for a, b in pairs), strict=True))
    return difference / torch.where(norm == 0, 1, norm)


def relative_error(found: State, expected: State) -> float:
    """The largest of the `relative_errors`, so that the numbers of other samples cannot hide a sample's error."""
    errors = relative_errors(found, expected)
    return float(errors.max()) if len(errors) else 0.0


def _norms(state: tuple[Tensor, ...]) -> Tensor:
    """The norm of each sample of a state of several tensors: (B,)."""
    return torch.stack([part.reshape(len(part), math.prod(part.shape[1:])).norm(dim=1) for part in state]).norm(dim=0)


def reconstruction_errors(
    tree: InvertibleModule, x: State, condition: Condition = None, *, exact_past: float | None = None
) -> list[LeafError]:
    """Walk back from the output of a tree as the reversible engine does, and compare with the true states.

    The walk needs the memory of all states between the leaves, which it keeps on the CPU. It leaves random stream and
    tree as they are: a layer that starts from its first batch still awaits it. A leaf whose input is kept
    (`keep_input`) has no error and hands the exact state on.

    Args:
        tree: the bijection.
        x: its input, (B, C, *spatial) or a tuple of states.
        condition: of the tree, if it takes one.
        exact_past: after a leaf with a larger error, continue from the exact state, as if its input were kept. Every
            leaf past this error is then at fault itself. None always continues from the rebuilt state.

    Returns:
        One entry per leaf in the order of the forward pass.

    Example:
        >>> errors = reconstruction_errors(Sequential(Logit(), ActNorm(4)), torch.rand(2, 4, 8, 8))
        >>> len(errors), max(error.rebuilt for error in errors) < 1e-4
        (2, True)
    """
    device = tensors_of(x)[0].device
    taken: list[tuple[State, State, LeafStart | None]] = []
    errors: list[LeafError] = []

    def to_cpu(state: State) -> State:
        return map_tensors(lambda part: part.to("cpu", copy=True), state)

    def forward_step(leaf: InvertibleModule, state: State) -> State:
        start = LeafStart(all_modules(leaf), device)
        y = FORWARD(leaf, state, condition)
        taken.append((to_cpu(state), to_cpu(y), start.settle(state)))
        return y

    def back_step(part: InvertibleModule, position: Position) -> None:
        part = expand(part)
        if isinstance(part, Composite):
            part.run_back(position, back_step)
            return
        x_true, y_true, start = taken.pop()
        x_true, y_true = (map_tensors(lambda t: t.to(device), state) for state in (x_true, y_true))
        with replayed(start):
            own = relative_error(INVERSE(part, laid_out(start, y_true), condition), x_true)
        with replayed(start):
            # A clone: the inverse of a layer that only reshapes lies in the memory of its output.
            y = laid_out(start, position.state)
            rebuilt = x_true if keeps_input(part) else INVERSE(part, y, condition)
            x = rebuilt if rebuilt is x_true else map_tensors(Tensor.clone, rebuilt)
        errors.append(LeafError(part, relative_error(x, x_true), own))
        if exact_past is not None and not errors[-1].rebuilt <= exact_past:
            x = x_true
        position.state, position.grad = x, map_tensors(torch.zeros_like, x_true)

    unmoved = Buffers(all_modules(tree)).replayed()
    with past_policies(), torch.no_grad(), left_as_found(tree), unmoved, RngState(device).replayed():
        y = map_tensors(Tensor.clone, run_leaves(tree, x, forward_step))
        back_step(tree, Position(y, map_tensors(torch.zeros_like, y)))
    return errors[::-1]


class LeafNames:
    """The names of a network's leaves, followed by ``⁻¹`` for those that the engine inverts."""

    def __init__(self, net: nn.Module) -> None:
        self._names = {id(module): name or type(module).__name__ for name, module in net.named_modules()}

    def __call__(self, leaf: InvertibleModule) -> str:
        if id(leaf) in self._names:
            return self._names[id(leaf)]
        if isinstance(leaf, Inverse):
            return self(leaf.module) + "⁻¹"
        # A part made anew by `inverted`: it shares what it holds with the network.
        inside = next((self._names[id(part)] for part in leaf.modules() if id(part) in self._names), None)
        return f"{inside}⁻¹" if inside else type(leaf).__name__
