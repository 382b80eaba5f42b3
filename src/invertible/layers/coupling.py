"""Coupling layers: one group of channels is changed by a function of the other, and of a condition."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..arguments import check_channel_number, check_channels
from ..composites import Sequential
from ..engine.ownership import may_overwrite
from ..engine.recorded import Recorded
from ..engine.walk import LeafBackward, backward_rule
from ..export import is_exporting
from ..module import Condition, InvertibleModule, VolumePreserving, tensors_of

SubnetConstructor = Callable[[int, int], nn.Module]
"""The type of constructors ``subnet(dims_in, dims_out)`` of the networks inside layers.

Example:
    >>> subnet: SubnetConstructor = lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1)
"""


def make_subnet(subnet: SubnetConstructor, dims_in: int, dims_out: int) -> nn.Module:
    """The network that a constructor makes.

    Raises:
        TypeError: for a network in the place of a constructor.
    """
    if isinstance(subnet, nn.Module):
        call = f"subnet({dims_in}, {dims_out})"
        raise TypeError(f"expected a constructor of subnets, called as {call}, got a network, {type(subnet).__name__}")
    return subnet(dims_in, dims_out)


class Coupling(InvertibleModule):
    """Base of all couplings: a group of channels that is read, one that is changed, and the input of the subnets.

    Args:
        channels: number of channels C of the state (B, C, *spatial), or (B, C).
        split: channels of the first group: their number, or their fraction as a float. Half of them, rounded up, by
            default.
        flip: change the first group instead of the second.
        condition_channels: channels of the condition, those of all its tensors together; 0 for none.

    Raises:
        ValueError: if either group would be empty.

    Example:
        >>> layer = AdditiveCoupling(4, lambda i, o: torch.nn.Conv1d(i, o, 1), split=0.25, condition_channels=2)
        >>> layer(torch.randn(2, 4, 8), torch.randn(2, 2, 8)).shape
        torch.Size([2, 4, 8])
    """

    def __init__(
        self, channels: int, *, split: float | None = None, flip: bool = False, condition_channels: int = 0
    ) -> None:
        super().__init__()
        check_channel_number(channels)
        first = (channels + 1) // 2 if split is None else split
        if isinstance(first, float):
            first = round(first * channels)
        if not 0 < first < channels:
            raise ValueError(f"expected a split between 1 and channels - 1, got split={split}, channels={channels}")
        if condition_channels < 0:
            raise ValueError(f"expected condition_channels >= 0, got {condition_channels}")
        self.sizes = [first, channels - first]
        self.flip = flip
        self.condition_channels = condition_channels
        self.takes_condition = condition_channels > 0
        self.num_seen = self.sizes[flip] + condition_channels
        self.num_changed = self.sizes[not flip]

    def groups(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The group that is read and the group that is changed, as views."""
        check_channels(state, sum(self.sizes))
        first, second = state.split(self.sizes, dim=1)
        return (second, first) if self.flip else (first, second)

    def join(self, read: Tensor, changed: Tensor) -> Tensor:
        """The state of two groups."""
        return torch.cat((changed, read) if self.flip else (read, changed), dim=1)

    def seen(self, read: Tensor, condition: Condition) -> Tensor:
        """What the subnets get: the group that is read, and the condition's channels."""
        return with_condition(read, condition, self.condition_channels) if self.takes_condition else read

    def extra_repr(self) -> str:
        condition = f", condition_channels={self.condition_channels}" if self.takes_condition else ""
        return f"split={self.sizes[0]}+{self.sizes[1]}, flip={self.flip}{condition}"


class AdditiveCoupling(Coupling, VolumePreserving):
    """Shift one group of channels by a function of the other (NICE; Dinh et al., 2014).

    ``y = [x₁, x₂ + F(x₁, c)]``, or with ``flip`` ``y = [x₁ + F(x₂, c), x₂]``, so that couplings with alternating
    ``flip`` change every channel in turn. The condition c is optional; see `condition_like`.

    Args:
        subnet: constructor of F, called as ``subnet(dims_in, dims_out)``; F keeps the spatial size. The channels of a
            condition add to ``dims_in``.
        channels, split, flip, condition_channels: see `Coupling`.

    Raises:
        ValueError: for a state or a condition of another shape, or an F that does not return the shape of the group
            that it changes.

    Example:
        >>> layer, x = AdditiveCoupling(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1)), torch.randn(2, 4, 8, 8)
        >>> torch.allclose(layer.inverse(layer(x)), x, atol=1e-5)
        True
    """

    overwrites_input = True

    def __init__(
        self,
        channels: int,
        subnet: SubnetConstructor,
        *,
        split: float | None = None,
        flip: bool = False,
        condition_channels: int = 0,
    ) -> None:
        super().__init__(channels, split=split, flip=flip, condition_channels=condition_channels)
        self.subnet = make_subnet(subnet, self.num_seen, self.num_changed)

    def shift(self, read: Tensor, condition: Condition) -> Tensor:
        """``F(x₁, c)``."""
        return checked_output(self.subnet(self.seen(read, condition)), read, self.num_changed)

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        return self._shifted(x, condition, sign=1)

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        return self._shifted(y, condition, sign=-1)

    def _shifted(self, state: Tensor, condition: Condition, sign: int) -> Tensor:
        """``[x₁, x₂ + sign · F(x₁, c)]``."""
        is_own = may_overwrite(self, state)
        read, changed = self.groups(state)
        shift = self.shift(read, condition)
        widens = torch.promote_types(state.dtype, shift.dtype) != state.dtype
        if torch.is_grad_enabled() or widens or is_exporting():
            return self.join(read, torch.add(changed, shift, alpha=sign))
        if not is_own:  # without a graph, a copy of both groups at once and a sum in place take half the time
            state = state.clone()
        self.groups(state)[1].add_(shift, alpha=sign)
        return state


class HasGroups(Protocol):
    """What a backward rule asks every coupling for, those of other libraries as well."""

    def groups(self, state: Tensor) -> tuple[Tensor, Tensor]: ...


class Shifting(HasGroups, Protocol):
    """A coupling whose map is ``y = [x₁, x₂ + F(x₁, c)]``."""

    def shift(self, read: Tensor, condition: Condition) -> Tensor: ...


@dataclass
class GroupsBack:
    """Views of what a backward rule gets: the group read and the group changed, of the output and of its gradient.

    The group that is read comes back as a leaf of the graph in which the subnets are evaluated. Autograd does not
    notice writes to the state by which it was made: the group that is read must keep its values until then, while the
    other may be written at any time.
    """

    read: Tensor
    changed: Tensor
    grad_read: Tensor
    grad_changed: Tensor

    @classmethod
    def of(cls, layer: HasGroups, y: Tensor, grad: Tensor) -> GroupsBack:
        read, changed = layer.groups(y)
        return cls(read.data.requires_grad_(), changed, *layer.groups(grad))


def _shift_back(leaf: LeafBackward, layer: Shifting, y: Tensor, grad: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """Go back through ``y_changed = x_changed + sign · F(read)``.

    F is evaluated once, and that one value serves both the inversion and the gradient: 4 units of work for every 3
    of plain backpropagation, where inverting first and running forward again takes 5.
    """
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        shift = layer.shift(groups.read, leaf.condition)
    groups.changed.sub_(shift.detach(), alpha=sign)
    recorded = Recorded.taking(grad.dtype, shift)
    del shift  # its memory is free for the backward pass
    grad_shift = groups.grad_changed if sign == 1 else -groups.grad_changed
    groups.grad_read.add_(leaf.differentiate(recorded, groups.read, grad_shift))
    return y, grad


additive_coupling = backward_rule(AdditiveCoupling)(partial(_shift_back, sign=1))
inverse_additive_coupling = backward_rule(AdditiveCoupling, inverse=True)(partial(_shift_back, sign=-1))


class TwoSidedCoupling(Sequential):
    """Two couplings that change first the first, then the second group: the blocks of RealNVP and FrEIA.

    ``y₁ = f(x₁; x₂, c)``, ``y₂ = g(x₂; y₁, c)``. With `AdditiveCoupling` this is FrEIA's NICECouplingBlock, with
    `AffineCoupling` its RNVPCouplingBlock, with `GlowCoupling` its GLOWCouplingBlock. Their default, ``split=0.5``,
    rounds half of the channels to an even number, 5 channels to 2 + 3; the default here rounds up, to 3 + 2.

    Args:
        coupling: class of the couplings.
        channels, subnet, options: of that class; it sets ``flip`` itself.

    Example:
        >>> block = TwoSidedCoupling(GlowCoupling, 4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1), clamp=1.0)
        >>> y, logdet = block.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(
        self, coupling: Callable[..., Coupling], channels: int, subnet: SubnetConstructor, **options: Any
    ) -> None:
        first = coupling(channels, subnet, flip=True, **options)
        second = coupling(channels, subnet, flip=False, **options)
        super().__init__(OrderedDict(first=first, second=second))


def with_condition(x: Tensor, condition: Condition, condition_channels: int) -> Tensor:
    """``[x, c]``: the channels of a state (B, C, *spatial), then those of the condition; see `condition_like`."""
    return torch.cat((x, *condition_like(x, condition, condition_channels)), dim=1)


def condition_like(x: Tensor, condition: Condition, condition_channels: int) -> list[Tensor]:
    """The tensors of a condition as images (B, Cc, *spatial) of the size of a state (B, C, *spatial).

    The condition is a tensor or a tuple of tensors: images (B, Cc, *spatial), and vectors (B, Cc), such as embedded
    class labels, which every voxel gets alike.

    Raises:
        ValueError: for a missing condition, another shape, or another number of channels.
    """
    parts = tensors_of(condition)
    if not parts:
        raise ValueError(f"expected a condition of {condition_channels} channels, got none")
    batch, spatial = x.shape[0], x.shape[2:]
    for part in parts:
        if part.ndim < 2 or part.shape[0] != batch or part.shape[2:] not in ((), spatial):
            expected = " or ".join(dict.fromkeys(f"({batch}, {', '.join(['C', *map(str, s)])})" for s in ((), spatial)))
            raise ValueError(f"expected a condition of shape {expected}, got {tuple(part.shape)}")
    found = sum(part.shape[1] for part in parts)
    if found != condition_channels:
        raise ValueError(f"expected a condition of {condition_channels} channels, got {found}")
    # (B, Cc) -> (B, Cc, 1, …) -> (B, Cc, *spatial); images are that already
    return [part.reshape(*part.shape, *[1] * (x.ndim - part.ndim)).expand(-1, -1, *spatial) for part in parts]


def checked_output(output: Tensor, read: Tensor, channels: int) -> Tensor:
    """The output of a coupling's subnet, of shape (B, channels, *spatial) where the group read is (B, C₁, *spatial).

    Raises:
        ValueError: for another shape, which broadcasting would turn into a wrong log-determinant without an error.
    """
    expected = (read.shape[0], channels, *read.shape[2:])
    if output.shape != expected:
        raise ValueError(f"expected the coupling's subnet to return shape {expected}, got {tuple(output.shape)}")
    return output
