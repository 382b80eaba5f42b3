"""Affine coupling layers: one group of channels is scaled and shifted by functions of the other."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..engine.walk import LeafBackward, backward_rule
from ..module import Condition
from .coupling import Coupling, GroupsBack, SubnetConstructor, checked_output

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


class AffineCoupling(Coupling):
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
        volume_preserving: subtract from s its mean over channels and voxels, so that ``Σ s = 0`` (GIN; Sorrenson et
            al., 2020).
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
        volume_preserving: bool = False,
        subnet_scale: float = 1.0,
    ) -> None:
        super().__init__(channels, split=split, flip=flip, condition_channels=condition_channels)
        self.clamp = clamp
        self.clamp_activation = find_clamp(clamp_activation)
        self.volume_preserving = volume_preserving
        self.subnet_scale = subnet_scale
        self.add_subnets(subnet)

    def add_subnets(self, subnet: SubnetConstructor) -> None:
        """Construct the subnets."""
        self.subnet_s = subnet(self.num_seen, self.num_changed)
        self.subnet_t = subnet(self.num_seen, self.num_changed)

    def run_subnets(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """``s̃`` and ``t̃``."""
        s, t = self.subnet_s(seen), self.subnet_t(seen)
        return checked_output(s, seen, self.num_changed), checked_output(t, seen, self.num_changed)

    def log_scale_and_shift(self, read: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """``s`` and ``t``, of the shape of the group that is changed."""
        raw_s, raw_t = (self.subnet_scale * out.to(read.dtype) for out in self.run_subnets(self.seen(read, condition)))
        s = self.clamp * self.clamp_activation(raw_s)
        if self.volume_preserving:
            s = s - s.mean(dim=list(range(1, s.ndim)), keepdim=True)
        return s, raw_t

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        return self.forward_and_logdet(x, condition)[0]

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        return self.inverse_and_logdet(y, condition)[0]

    def forward_and_logdet(self, x: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        read, changed = self.groups(x)
        s, t = self.log_scale_and_shift(read, condition)
        return self.join(read, s.exp() * changed + t), s.flatten(1).sum(1)

    def inverse_and_logdet(self, y: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        read, changed = self.groups(y)
        s, t = self.log_scale_and_shift(read, condition)
        return self.join(read, (changed - t) * (-s).exp()), -s.flatten(1).sum(1)


class GlowCoupling(AffineCoupling):
    """`AffineCoupling` with one subnet for ``[s̃, t̃]``: half the work (Glow; Kingma and Dhariwal, 2018).

    Example:
        >>> layer = GlowCoupling(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1), split=1)
        >>> layer.subnet  # from 1 channel to log-scale and shift of 3
        Conv2d(1, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

    def add_subnets(self, subnet: SubnetConstructor) -> None:
        self.subnet = subnet(self.num_seen, 2 * self.num_changed)

    def run_subnets(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        s, t = checked_output(self.subnet(seen), seen, 2 * self.num_changed).chunk(2, dim=1)
        return s, t


@backward_rule(AffineCoupling)
def affine_coupling(leaf: LeafBackward, layer: AffineCoupling, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``x = (y − t) e⁻ˢ``, ``∇x = ∇y eˢ``, ``∇t = ∇y``, ``∇s = ∇y (y − t) + ∇logdet``: the subnets run once."""
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        s, t = layer.log_scale_and_shift(groups.read, leaf.condition)
    scaled = groups.changed - t.detach()
    grad_s = _add_per_sample(groups.grad_changed * scaled, leaf.grad_logdet, sign=1)
    groups.grad_read.add_(leaf.differentiate((s, t), groups.read, (grad_s, groups.grad_changed)))
    s = s.detach()
    groups.grad_changed.mul_(s.exp())
    groups.changed.copy_(scaled.mul_((-s).exp()))
    return y, grad


@backward_rule(AffineCoupling, inverse=True)
def inverse_affine_coupling(
    leaf: LeafBackward, layer: AffineCoupling, y: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for ``y = (x − t) e⁻ˢ``: ``x = y eˢ + t``, ``∇x = ∇y e⁻ˢ``, ``∇t = −∇x``, ``∇s = −∇y y − ∇logdet``."""
    groups = GroupsBack.of(layer, y, grad)
    with leaf.replay(), torch.enable_grad():
        s, t = layer.log_scale_and_shift(groups.read, leaf.condition)
    grad_x = groups.grad_changed * (-s.detach()).exp()
    grad_s = _add_per_sample(-groups.grad_changed * groups.changed, leaf.grad_logdet, sign=-1)
    groups.grad_read.add_(leaf.differentiate((s, t), groups.read, (grad_s, -grad_x)))
    groups.grad_changed.copy_(grad_x)
    groups.changed.mul_(s.detach().exp()).add_(t.detach())
    return y, grad


def _add_per_sample(values: Tensor, per_sample: Tensor | None, sign: int) -> Tensor:
    """``values + sign · per_sample`` for values (B, …), in place, and numbers (B,), if there are any."""
    if per_sample is None:
        return values
    return values.add_(per_sample.reshape(-1, *[1] * (values.ndim - 1)), alpha=sign)
