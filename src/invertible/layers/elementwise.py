"""Increasing functions of each number of a state, with coefficients from other channels, a condition or a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ..arguments import as_precise_as, check_channels
from ..engine.walk import LeafBackward, backward_rule
from ..log_determinants import sum_per_sample
from ..module import Condition, InvertibleModule
from .coupling import Coupling, GroupsBack, SubnetConstructor, checked_output, condition_like, make_subnet


class ElementwiseMap(Protocol):
    """An increasing function g of each number of a state (B, C, *spatial), and its inverse.

    Example:
        >>> family = LinearSpline(5)
        >>> spline: ElementwiseMap = family(torch.zeros(2, 4 * family.num_coefficients))  # of states (2, 4)
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``g(x)`` and ``log g'(x)``, which may be broadcast over x."""
        ...

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x = g⁻¹(y)`` and ``−log g'(x)``, which may be broadcast over y."""
        ...


class MapFamily(nn.Module):
    """A family of increasing functions: makes one for each number of a state from a few coefficients.

    Called with coefficients (B, K·C, *spatial), any real numbers, it returns an `ElementwiseMap` of states
    (B, C, *spatial). Their sizes may be 1 where the state's are larger.

    Example:
        >>> isinstance(RationalQuadraticSpline(5), MapFamily)
        True
    """

    num_coefficients: int  # K, per number

    def forward(self, coefficients: Tensor) -> ElementwiseMap:
        raise NotImplementedError


class MonotoneCoupling(Coupling):
    """Base of couplings ``y = [x₁, g(x₂; θ)]`` whose g is increasing in each number, with ``θ = F(x₁, c)``.

    ``log|det dy/dx| = Σ log g'(x₂; θ)``. A subclass says what θ is, and what map it gives.
    """

    def coefficients(self, read: Tensor, condition: Condition) -> tuple[Tensor, ...]:
        """θ: what the subnets return, in the precision of the state."""
        raise NotImplementedError

    def map_of(self, *coefficients: Tensor) -> ElementwiseMap:
        """``g(·; θ)``."""
        raise NotImplementedError

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        return self.forward_and_logdet(x, condition)[0]

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        return self.inverse_and_logdet(y, condition)[0]

    def forward_and_logdet(self, x: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        read, changed = self.groups(x)
        y, log_derivative = self.map_of(*self.coefficients(read, condition)).forward(changed)
        return self.join(read, y), sum_per_sample(log_derivative.expand_as(changed))

    def inverse_and_logdet(self, y: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        read, changed = self.groups(y)
        x, log_derivative = self.map_of(*self.coefficients(read, condition)).inverse(changed)
        return self.join(read, x), sum_per_sample(log_derivative.expand_as(changed))


class ElementwiseCoupling(MonotoneCoupling):
    """Change one group of channels by functions whose coefficients depend on the other: a spline flow's coupling.

    ``y = [x₁, g(x₂; F(x₁, c))]``; with ``flip``, the first group is changed. As in zuko and flowjax, the family of g
    is an argument: `RationalQuadraticSpline`, `LinearSpline`, `Affine`, `Scaling`.

    Args:
        subnet: constructor of F, called as ``subnet(dims_in, dims_out)``; F keeps the spatial size and returns K
            numbers for each one that is changed.
        elementwise: the family.
        channels, split, flip, condition_channels: see `Coupling`.

    Raises:
        ValueError: for a state or a condition of another shape, or a subnet that returns another shape.

    Example:
        >>> layer = ElementwiseCoupling(4, lambda i, o: torch.nn.Linear(i, o), RationalQuadraticSpline(5))
        >>> y, logdet = layer.forward_and_logdet(torch.randn(8, 4))  # (8, 4), (8,)
    """

    def __init__(
        self,
        channels: int,
        subnet: SubnetConstructor,
        elementwise: MapFamily,
        *,
        split: float | None = None,
        flip: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(channels, split=split, flip=flip, condition_channels=condition_channels)
        self.elementwise = elementwise
        self.subnet = make_subnet(subnet, self.num_seen, elementwise.num_coefficients * self.num_changed)

    def coefficients(self, read: Tensor, condition: Condition) -> tuple[Tensor, ...]:
        out = self.subnet(self.seen(read, condition))
        out = checked_output(out, read, self.elementwise.num_coefficients * self.num_changed)
        return (as_precise_as(read, out),)

    def map_of(self, *coefficients: Tensor) -> ElementwiseMap:
        return self.elementwise(*coefficients)


class _ElementwiseLayer(InvertibleModule):
    """``y = g(x; θ)`` for all channels."""

    elementwise: MapFamily

    def coefficients(self, state: Tensor, condition: Condition) -> Tensor:
        """θ, for a state like this."""
        raise NotImplementedError

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        return self.forward_and_logdet(x, condition)[0]

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        return self.inverse_and_logdet(y, condition)[0]

    def forward_and_logdet(self, x: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.elementwise(self.coefficients(x, condition)).forward(x)
        return y, sum_per_sample(log_derivative.expand_as(x))

    def inverse_and_logdet(self, y: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        x, log_derivative = self.elementwise(self.coefficients(y, condition)).inverse(y)
        return x, sum_per_sample(log_derivative.expand_as(y))


class ConditionalElementwise(_ElementwiseLayer):
    """``y = g(x; F(c))``: functions of each number whose coefficients depend on the condition c alone.

    With `Affine` it is the conditioning of SPADE (Park et al., 2019) as a bijection.

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        subnet: constructor of F, called as ``subnet(condition_channels, K·C)``; F keeps the spatial size.
        elementwise: the family, see `ElementwiseCoupling`.
        condition_channels: channels of the condition, those of all its tensors together; see `condition_like`.

    Raises:
        ValueError: without a condition, or for a state, a condition or an output of the subnet of another shape.

    Example:
        >>> layer = ConditionalElementwise(4, lambda i, o: torch.nn.Linear(i, o), LinearSpline(5), condition_channels=2)
        >>> layer(torch.randn(8, 4), torch.randn(8, 2)).shape
        torch.Size([8, 4])
    """

    takes_condition = True

    def __init__(
        self, channels: int, subnet: SubnetConstructor, elementwise: MapFamily, *, condition_channels: int
    ) -> None:
        super().__init__()
        if condition_channels < 1:
            raise ValueError(f"expected condition_channels >= 1, got {condition_channels}")
        self.channels = channels
        self.condition_channels = condition_channels
        self.elementwise = elementwise
        self.subnet = make_subnet(subnet, condition_channels, elementwise.num_coefficients * channels)

    def coefficients(self, state: Tensor, condition: Condition) -> Tensor:
        check_channels(state, self.channels)
        seen = torch.cat(condition_like(state, condition, self.condition_channels), dim=1)
        out = self.subnet(seen)
        return as_precise_as(state, checked_output(out, state, self.elementwise.num_coefficients * self.channels))

    def extra_repr(self) -> str:
        return f"{self.channels}, condition_channels={self.condition_channels}"


class LearnedElementwise(_ElementwiseLayer):
    """``y = g(x; θ)`` with one learned θ for each number of a sample, or for each channel.

    Args:
        shape: of the functions: that of a sample (C, *spatial), or with 1 in the place of sizes for which a function
            is shared: (C, 1, 1) is one function per channel of an image.
        elementwise: the family, see `ElementwiseCoupling`; all coefficients start at zero.

    Raises:
        ValueError: for a state of another shape.

    Example:
        >>> layer = LearnedElementwise((4, 1, 1), LinearSpline(5))  # one spline for each channel
        >>> layer(torch.randn(2, 4, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(self, shape: Sequence[int], elementwise: MapFamily) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.elementwise = elementwise
        self.theta = nn.Parameter(torch.zeros(elementwise.num_coefficients * self.shape[0], *self.shape[1:]))

    def coefficients(self, state: Tensor, condition: Condition = None) -> Tensor:
        check_channels(state, self.shape[0])
        expected, found = self.shape, tuple(state.shape[1:])
        # Only sizes of space may be shared, or channels would be broadcast.
        if len(expected) != len(found) or any(n not in (1, m) for n, m in zip(expected[1:], found[1:], strict=True)):
            raise ValueError(
                f"expected a state of shape (B, {', '.join(map(str, expected))}), got {tuple(state.shape)}"
            )
        return as_precise_as(state, self.theta[None])

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


def _coupling_back(
    leaf: LeafBackward, layer: MonotoneCoupling, y: Tensor, grad: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The subnet runs once, and its value serves both the inversion and the gradient.

    The map is differentiated before the subnet, whose graph is then the only one left.
    """
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        theta = layer.coefficients(groups.read, leaf.condition)
    leaves = tuple(part.detach().requires_grad_() for part in theta)
    with torch.enable_grad():
        elementwise = layer.map_of(*leaves)
    x, grad_x, *grads = _map_back(leaf, elementwise, leaves, groups.changed, groups.grad_changed, inverse)
    del elementwise, leaves
    groups.grad_read.add_(leaf.differentiate(theta, groups.read, tuple(grads)))
    groups.changed.copy_(x)
    groups.grad_changed.copy_(grad_x)
    return y, grad


def _layer_back(
    leaf: LeafBackward, layer: _ElementwiseLayer, y: Tensor, grad: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The same where the coefficients do not depend on the state."""
    with leaf.replay(), torch.enable_grad():
        theta = layer.coefficients(y, leaf.condition)
        leaves = (theta.detach().requires_grad_(),)
        elementwise = layer.elementwise(*leaves)
    x, grad_x, *grads = _map_back(leaf, elementwise, leaves, y, grad, inverse)
    del elementwise, leaves
    leaf.differentiate_sparsely((theta,), (), tuple(grads))
    return x, grad_x


def _map_back(
    leaf: LeafBackward, elementwise: ElementwiseMap, theta: Sequence[Tensor], y: Tensor, grad: Tensor, inverse: bool
) -> tuple[Tensor, ...]:
    """x, ``∇x`` and ``∇θ`` for ``y = g(x; θ)``, or for ``y = g⁻¹(x; θ)``."""
    there, back = (elementwise.inverse, elementwise.forward) if inverse else (elementwise.forward, elementwise.inverse)
    with torch.no_grad():
        x = back(y)[0]
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value, log_derivative = there(x)
        outputs = (value,) if leaf.grad_logdet is None else (value, sum_per_sample(log_derivative.expand_as(x)))
    grads = (grad,) if leaf.grad_logdet is None else (grad, leaf.grad_logdet)
    return (x.detach(), *leaf.differentiate(outputs, (x, *theta), grads))


for _inverse in (False, True):
    backward_rule(MonotoneCoupling, inverse=_inverse)(partial(_coupling_back, inverse=_inverse))
    backward_rule(_ElementwiseLayer, inverse=_inverse)(partial(_layer_back, inverse=_inverse))
