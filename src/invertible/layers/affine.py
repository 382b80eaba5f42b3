"""Affine maps of each number, and couplings that scale and shift one group of channels by functions of the other."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..arguments import as_precise_as
from ..engine.walk import LeafBackward, backward_rule
from ..module import Condition
from .coupling import GroupsBack, HasGroups, SubnetConstructor, checked_output, make_subnet
from .elementwise import MapFamily, MonotoneCoupling

# A soft clamp f from ℝ to (−1, 1), which keeps the scales between exp(−c) and exp(c).
Clamp = Callable[[Tensor], Tensor]


def atan(u: Tensor) -> Tensor:
    """``2/π · atan(u)``, with FrEIA's rounded factor 0.636, so that weights trained there give the same outputs."""
    return 0.636 * torch.atan(u)


def sigmoid(u: Tensor) -> Tensor:
    """``2 sigmoid(u) − 1``."""
    return 2 * torch.sigmoid(u) - 1


def identity(u: Tensor) -> Tensor:
    """``u``: no clamp."""
    return u


CLAMPS: dict[str, Clamp] = {"atan": atan, "tanh": torch.tanh, "sigmoid": sigmoid, "none": identity}


def find_clamp(activation: str | Clamp) -> Clamp:
    """The clamp of that name (in any case: FrEIA writes ``ATAN``), or the given function from ℝ to (−1, 1).

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(activation, str):
        return activation
    if activation.lower() not in CLAMPS:
        raise ValueError(
            f"expected clamp_activation to be one of {', '.join(CLAMPS)} or a function, got {activation!r}"
        )
    return CLAMPS[activation.lower()]


@dataclass(frozen=True)
class AffineMap:
    """``g(x) = exp(s) x + t``."""

    s: Tensor
    t: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.s.exp() * x + self.t, self.s

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return (y - self.t) * (-self.s).exp(), -self.s


class Affine(MapFamily):
    """The maps ``g(x) = exp(s) x + t`` with ``s = c f(s̃)``: SPADE's, in a `ConditionalElementwise`.

    The coefficients are the channels of s̃, then those of t. For couplings there is `GlowCoupling`, whose parameters
    have other names and whose backward rule is cheaper.

    Args:
        clamp, clamp_activation: c and f, see `AffineCoupling`.

    Example:
        >>> layer = ConditionalElementwise(4, lambda i, o: torch.nn.Conv2d(i, o, 1), Affine(), condition_channels=2)
        >>> y, logdet = layer.forward_and_logdet(torch.randn(2, 4, 8, 8), torch.randn(2, 2, 8, 8))
    """

    num_coefficients = 2

    def __init__(self, clamp: float = 2.0, clamp_activation: str | Clamp = "atan") -> None:
        super().__init__()
        self.clamp = clamp
        self.clamp_activation = find_clamp(clamp_activation)

    def forward(self, coefficients: Tensor) -> AffineMap:
        raw_s, t = coefficients.chunk(2, dim=1)
        return AffineMap(self.clamp * self.clamp_activation(raw_s), t)

    def extra_repr(self) -> str:
        return f"clamp={self.clamp}"


class Scaling(MapFamily):
    """The maps ``g(x) = exp(s + s₀) x`` with the start ``exp(s₀)``: FrEIA's LearnedElementwiseScaling.

    Args:
        init: ``exp(s₀)``.

    Raises:
        ValueError: unless the start is positive.

    Example:
        >>> LearnedElementwise((1, 4), Scaling(init=2.0))(torch.ones(1, 1, 4)).detach()
        tensor([[[2., 2., 2., 2.]]])
    """

    num_coefficients = 1

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        if init <= 0:
            raise ValueError(f"expected a positive scale to start with, got {init}")
        self.init = init

    def forward(self, coefficients: Tensor) -> AffineMap:
        return AffineMap(coefficients + math.log(self.init), torch.zeros_like(coefficients))

    def extra_repr(self) -> str:
        return f"init={self.init}"


class AffineCoupling(MonotoneCoupling):
    """Scale and shift one group of channels by functions of the other (RealNVP; Dinh et al., 2017).

    ``y = [x₁, exp(s) x₂ + t]`` with the log-scale ``s = c f(s̃(x₁))`` and the shift ``t = t̃(x₁)``, hence
    ``log|det dy/dx| = Σ s``; with ``flip``, the first group is changed. The soft clamp f keeps the scales between
    ``exp(−c)`` and ``exp(c)`` (Ardizzone et al., 2019). Here s̃ and t̃ are two subnets; `GlowCoupling` has one for both.
    Log-scale and shift are taken in the precision of the state, whatever autocast makes of the subnets.

    Args:
        subnet: constructor of the subnets, called as ``subnet(dims_in, dims_out)``; they keep the spatial size.
        channels, split, flip, condition_channels: see `Coupling`.
        clamp: c.
        clamp_activation: f: ``atan``, ``tanh``, ``sigmoid``, ``none`` (``f(u) = u``: no bound), or a function.
        volume_preserving: subtract from s its mean, so that ``Σ s = 0`` (GIN; Sorrenson et al., 2020): True over
            channels and voxels, as FrEIA's all-in-one block, ``voxel`` over the channels of each voxel, as its GIN
            block.
        subnet_scale: factor on the subnets' outputs, so that a small one starts the layer near the identity.

    Raises:
        ValueError: for unknown options, a state or a condition of another shape, or a subnet that does not return the
            shape of the group that is changed.

    Example:
        >>> layer = AffineCoupling(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1), clamp=1.5)
        >>> y, logdet = layer.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(
        self,
        channels: int,
        subnet: SubnetConstructor,
        *,
        split: float | None = None,
        flip: bool = False,
        condition_channels: int = 0,
        clamp: float = 2.0,
        clamp_activation: str | Clamp = "atan",
        volume_preserving: bool | str = False,
        subnet_scale: float = 1.0,
    ) -> None:
        super().__init__(channels, split=split, flip=flip, condition_channels=condition_channels)
        if volume_preserving not in (False, True, "voxel"):
            raise ValueError(f"expected volume_preserving to be False, True or 'voxel', got {volume_preserving!r}")
        self.clamp = clamp
        self.clamp_activation = find_clamp(clamp_activation)
        self.volume_preserving = volume_preserving
        self.subnet_scale = subnet_scale
        self.add_subnets(subnet)

    def add_subnets(self, subnet: SubnetConstructor) -> None:
        """Construct the subnets."""
        self.subnet_s = make_subnet(subnet, self.num_seen, self.num_changed)
        self.subnet_t = make_subnet(subnet, self.num_seen, self.num_changed)

    def run_subnets(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """``s̃`` and ``t̃``."""
        s, t = self.subnet_s(seen), self.subnet_t(seen)
        return checked_output(s, seen, self.num_changed), checked_output(t, seen, self.num_changed)

    def log_scale_and_shift(self, read: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """``s`` and ``t``, of the shape of the group that is changed."""
        raw_s, t = (as_precise_as(read, out) for out in self.run_subnets(self.seen(read, condition)))
        if self.subnet_scale != 1:
            raw_s, t = self.subnet_scale * raw_s, self.subnet_scale * t
        s = self.clamp * self.clamp_activation(raw_s)
        if self.volume_preserving:
            dims = [1] if self.volume_preserving == "voxel" else list(range(1, s.ndim))
            s = s - s.mean(dim=dims, keepdim=True)
        return s, t

    def coefficients(self, read: Tensor, condition: Condition) -> tuple[Tensor, ...]:
        return self.log_scale_and_shift(read, condition)

    def map_of(self, *coefficients: Tensor) -> AffineMap:
        return AffineMap(*coefficients)


class GlowCoupling(AffineCoupling):
    """`AffineCoupling` with one subnet for ``[s̃, t̃]``: half the work (Glow; Kingma and Dhariwal, 2018).

    Example:
        >>> layer = GlowCoupling(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1), split=1)
        >>> layer.subnet  # from 1 channel to log-scale and shift of 3
        Conv2d(1, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

    def add_subnets(self, subnet: SubnetConstructor) -> None:
        self.subnet = make_subnet(subnet, self.num_seen, 2 * self.num_changed)

    def run_subnets(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        s, t = checked_output(self.subnet(seen), seen, 2 * self.num_changed).chunk(2, dim=1)
        return s, t


class ScalesAndShifts(HasGroups, Protocol):
    """A coupling whose map is ``y = [x₁, exp(s) x₂ + t]``, also of another library."""

    def log_scale_and_shift(self, read: Tensor, condition: Condition) -> tuple[Tensor, Tensor]: ...


@backward_rule(AffineCoupling)
def affine_coupling(leaf: LeafBackward, layer: ScalesAndShifts, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``x = (y − t) e⁻ˢ``, ``∇x = ∇y eˢ``, ``∇t = ∇y``, ``∇s = ∇y (y − t) + ∇logdet``: the subnets run once.

    As the general rule, but in the memory of state and gradient.
    """
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        s, t = layer.log_scale_and_shift(groups.read, leaf.condition)
    scaled = groups.changed - t.detach()
    grad_s = _add_per_sample(groups.grad_changed * scaled, leaf.grad_logdet, sign=1)
    groups.grad_read.add_(leaf.differentiate((s, t), groups.read, (grad_s, groups.grad_changed)))
    scale = s.detach().exp()
    groups.grad_changed.mul_(scale)
    torch.div(scaled, scale, out=groups.changed)
    return y, grad


@backward_rule(AffineCoupling, inverse=True)
def inverse_affine_coupling(
    leaf: LeafBackward, layer: ScalesAndShifts, y: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for ``y = (x − t) e⁻ˢ``: ``x = y eˢ + t``, ``∇x = ∇y e⁻ˢ``, ``∇t = −∇x``, ``∇s = −∇y y − ∇logdet``."""
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        s, t = layer.log_scale_and_shift(groups.read, leaf.condition)
    scale = s.detach().exp()
    grad_x = groups.grad_changed / scale
    grad_s = _add_per_sample(-groups.grad_changed * groups.changed, leaf.grad_logdet, sign=-1)
    groups.grad_read.add_(leaf.differentiate((s, t), groups.read, (grad_s, -grad_x)))
    groups.grad_changed.copy_(grad_x)
    groups.changed.mul_(scale).add_(t.detach())
    return y, grad


def _add_per_sample(values: Tensor, per_sample: Tensor | None, sign: int) -> Tensor:
    """``values + sign · per_sample`` for values (B, …), in place, and numbers (B,), if there are any."""
    if per_sample is None:
        return values
    return values.add_(per_sample.reshape(-1, *[1] * (values.ndim - 1)), alpha=sign)
