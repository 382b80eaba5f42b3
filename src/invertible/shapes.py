"""The output shapes of a bijection, found by evaluating it once on zeros."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .composites import Sequential
from .left_as_found import left_as_found
from .module import FORWARD, Condition, InvertibleModule, State, tensors_of

Shape = tuple[int, ...]  # without the batch dimension


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode and no graph is built; then module and random stream are restored.

    Args:
        module: with all inside it.

    Example:
        >>> with undisturbed(layer := ActNorm(4)):  # the batch does not set its parameters
        ...     y = layer(torch.randn(2, 4, 8, 8))
    """
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        for part in training:
            part.training = True


def as_state(tensors: Sequence[Any]) -> Any:
    """One tensor as itself, several as a tuple, none as None."""
    return (tensors[0] if len(tensors) == 1 else tuple(tensors)) if tensors else None


def output_shapes(
    module: InvertibleModule,
    shapes: Sequence[Shape],
    condition_shapes: Sequence[Shape] = (),
    condition_dtypes: Sequence[torch.dtype | None] = (),
) -> list[Shape]:
    """The shapes that the module makes of states of these shapes, all without the batch dimension.

    Costs one evaluation of a single sample.

    Args:
        module: with parameters on any device; states take its parameters' precision.
        shapes: of the tensors of the state.
        condition_shapes: of the tensors of the condition, if it takes one.
        condition_dtypes: of the same; None is the state's.

    Raises:
        ValueError: if the module refuses these shapes, or does not keep the number of elements.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))

    def zeros(shape: Shape, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(1, *shape, dtype=dtype or like.dtype, device=like.device)

    x: State = as_state([zeros(shape) for shape in shapes])
    dtypes = condition_dtypes or [None] * len(condition_shapes)
    condition: Condition = as_state([zeros(s, d) for s, d in zip(condition_shapes, dtypes, strict=True)])
    try:
        with left_as_found(module), undisturbed(module):
            y = FORWARD(module, x, condition)
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise ValueError(f"{error}, for input {show(shapes)}") from error
    found = [tuple(part.shape[1:]) for part in tensors_of(y)]
    if sum(map(math.prod, found)) != sum(map(math.prod, shapes)):
        raise ValueError(f"expected equal numbers of elements in input and output, got {show(shapes)} -> {show(found)}")
    return found


def sequential_for(
    shape: Shape, *constructors: Callable[[Shape], InvertibleModule], condition_shapes: Sequence[Shape] = ()
) -> Sequential:
    """A `Sequential` whose parts are made for the shapes that reach them.

    Args:
        shape: of the input, without the batch dimension.
        constructors: each called with the shape of its part's input.
        condition_shapes: of the tensors of the condition, for the parts that take one.

    Raises:
        ValueError: that names the part, if a part refuses the shape that reaches it.

    Example:
        >>> net = sequential_for((3, 8, 8), lambda s: Checkerboard(spatial_dims=2), lambda s: ActNorm(s[0]))
        >>> net(torch.randn(2, 3, 8, 8)).shape
        torch.Size([2, 12, 4, 4])
    """
    parts: list[InvertibleModule] = []
    for index, construct in enumerate(constructors):
        part = construct(shape)
        try:
            found = output_shapes(part, [shape], condition_shapes)
            if len(found) != 1:
                raise ValueError(f"expected one output, got {len(found)}; use a graph for nets with several states")
        except ValueError as error:
            raise ValueError(f"part {index} ({type(part).__name__}): {error}") from error
        shape = found[0]
        parts.append(part)
    return Sequential(*parts)


def show(shapes: Sequence[Shape]) -> str:
    """``3×32×32, 10``."""
    return ", ".join("×".join(map(str, shape)) or "scalar" for shape in shapes)
