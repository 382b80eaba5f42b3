"""The singular vectors of spectrally normalised layers, found for the values of their weights."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .fourier_norm import LinearLayer
from .singular_vector import SWEEP, first_singular_vectors, random_unit_vector

_MOST_NUMBERS = 2**25  # of the sweeps that run together; larger layers keep a GPU busy one by one
_NOVELTY = 0.3  # length of the random vector that is added to the last singular vector


@dataclass
class Settled:
    """The singular vector as it was found for the values of a weight."""

    vector: Tensor  # (1, *input shape), of norm 1
    values: Tensor
    owner: weakref.ref[Tensor] | None = None  # the tensor last seen with them; None in a copied or loaded module

    def like(self, weight: Tensor) -> Settled:
        """The same on the device and in the precision of a weight: a module may have been moved or cast since."""
        if (self.values.dtype, self.values.device) == (weight.dtype, weight.device):
            return self
        vector = self.vector.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        return Settled(vector, self.values.to(weight), self.owner)

    def may_return(self, weight: Tensor) -> bool:
        """Whether backward may still need it: its values belong to another tensor than ``weight``, which is alive."""
        owner = None if self.owner is None else self.owner()
        return owner is not None and owner is not weight

    def __reduce__(self) -> tuple[Any, ...]:
        return Settled, (self.vector, self.values)


def find(known: Iterable[Settled], weight: Tensor) -> Settled | None:
    """The one that was found for the values of a weight."""
    return next((settled for settled in known if torch.equal(settled.values, weight)), None)


@dataclass(frozen=True)
class LayerMaps:
    """Layers that differ in their weights (L, *weight) only, without bias; see `singular_vector.LinearMaps`."""

    layer: LinearLayer
    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return x @ self.weights.mT
        joined = copy.copy(self.layer)
        joined.groups = len(self.weights) * self.layer.groups
        y = joined._conv_forward(x.transpose(0, 1).flatten(1, 2), self.weights.flatten(0, 1), None)
        return y.unflatten(1, (len(self.weights), -1)).transpose(0, 1)

    def __getitem__(self, chosen: Tensor) -> LayerMaps:
        return LayerMaps(self.layer, self.weights[chosen.to(self.weights.device)])


class Together:
    """The layers that find their vectors together. It keeps none of them alive, and copies begin without members."""

    def __init__(self) -> None:
        self._members: list[weakref.ref[Any]] = []

    def add(self, layer: nn.Module) -> None:
        """Add a layer, and forget those that are gone."""
        self._members = [weakref.ref(member) for member in (*self.members(), layer)]

    def members(self) -> list[Any]:
        """The layers, in the order in which they were added."""
        return [member for reference in self._members if (member := reference()) is not None]

    def __deepcopy__(self, memo: dict[int, Any]) -> Together:
        return Together()

    def __reduce__(self) -> tuple[Any, ...]:
        return Together, ()


def options_of(layer: LinearLayer) -> tuple[Any, ...]:
    """What else than its weight decides what a layer computes, without its bias."""
    if isinstance(layer, nn.Linear):
        return (type(layer),)
    return (type(layer), layer.stride, layer.padding, layer.dilation, layer.groups, layer.padding_mode)


def most_at_once(layer: LinearLayer, input_shape: tuple[int, ...]) -> int:
    """How many layers of this kind may search together, by the memory of their sweeps.

    On a CPU one: its operations start at once, and its caches hold the numbers of one layer.
    """
    if layer.weight.device.type == "cpu":
        return 1
    outputs, inputs = layer.weight.shape[:2]
    numbers = math.prod(input_shape) * (1 + max(outputs / inputs, 1))
    return max(1, int(_MOST_NUMBERS // (SWEEP * numbers)))


def settle(
    layer: LinearLayer,
    weights: Sequence[Tensor],
    lasts: Sequence[Tensor | None],
    input_shape: tuple[int, ...],
    *,
    tolerance: float,
    max_iterations: int,
) -> list[Settled]:
    """The vectors of layers that differ in their weights only, each searched from its last vector on, if it has one.

    Raises:
        ValueError: for weights that are not finite.
    """
    values = torch.stack([weight.detach() for weight in weights])
    if not bool(torch.isfinite(values).all()):
        raise ValueError("expected finite weights, got infinite or undefined ones: the training may have diverged")
    precise = values.to(torch.promote_types(values.dtype, torch.float32))
    random = random_unit_vector(input_shape, precise)
    starts = torch.stack([random if last is None else last[0] + _NOVELTY * random for last in lasts])
    with torch.autocast(values.device.type, enabled=False):
        vectors = first_singular_vectors(
            LayerMaps(layer, precise), starts, tolerance=tolerance, max_iterations=max_iterations
        )
    return [Settled(vector[None].clone(), value.clone()) for vector, value in zip(vectors, values, strict=True)]
