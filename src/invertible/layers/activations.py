"""Bijective activation functions."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import per_channel
from ..log_determinants import sum_per_sample
from ..module import InvertibleModule
from ..onnx_operations import root_of_one_plus_square


class Activation(InvertibleModule):
    """A strictly increasing function σ of every number of a state of any shape (B, …).

    ``log|det dy/dx| = Σ log σ'(x)``. Its slope goes from ``slope`` at −∞ to 1 at +∞.

    Raises:
        ValueError: for a slope outside (0, 1].
    """

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__()
        if not 0 < slope <= 1:
            raise ValueError(f"expected a slope in (0, 1], got {slope}")
        self.slope = slope

    def log_derivative(self, x: Tensor) -> Tensor:
        """``log σ'(x)``, elementwise."""
        raise NotImplementedError

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), sum_per_sample(self.log_derivative(x))

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


class SneakyReLU(Activation):
    """A smooth leaky ReLU with a closed-form inverse (Finzi et al., 2019).

    ``σ(x) = (x + α(√(1+x²) − 1))/(1+α)`` with ``α = (1−s)/(1+s)`` for the slope s. With ``u = (1+α)y + α`` the inverse
    is ``x = (u − α√(u² + 1 − α²))/(1 − α²)``.

    Each is evaluated in a form that adds terms of equal sign only. These textbook forms subtract nearly equal numbers:
    in float32 with s = 0.01, x comes back with relative errors up to 3e-3 from them, up to 1e-6 from ours.

    Plain autograd saves x alone.

    Args:
        slope: s at −∞, in (0, 1]; at +∞ it is 1.

    Example:
        >>> SneakyReLU(slope=0.1)(torch.tensor([[-9.0, 0.0, 9.0]]))
        tensor([[-1.3251,  0.0000,  8.5749]])
    """

    def __init__(self, slope: float = 0.1) -> None:
        super().__init__(slope)
        # 1+α and 1−α² from s directly: α itself is close to 1.
        self._alpha = (1 - slope) / (1 + slope)
        self._one_plus_alpha = 2 / (1 + slope)
        self._one_minus_alpha_squared = 2 * slope / (1 + slope) * self._one_plus_alpha

    def forward(self, x: Tensor) -> Tensor:
        return _Sneaky.apply(x, self.slope)

    def inverse(self, y: Tensor) -> Tensor:
        if self._alpha == 0:
            return y.clone()  # the identity; the quotient below would be 0/0 at zero
        scaled = self._one_plus_alpha * y
        u = scaled + self._alpha
        # `new_full`, since `new_tensor` would copy from the host.
        root = self._alpha * torch.hypot(u, u.new_full((), math.sqrt(self._one_minus_alpha_squared)))
        # For u > 0, expanded by u + α√…, where u² − α² = (1+α)y · ((1+α)y + 2α). The clamp keeps the branch that is
        # not taken finite, and its gradient with it.
        right = scaled * ((scaled + 2 * self._alpha) / (u.clamp(min=0) + root))
        return torch.where(u >= 0, right, (u - root) / self._one_minus_alpha_squared)

    def log_derivative(self, x: Tensor) -> Tensor:
        root, numerator = _derivative(x, self.slope)
        return (numerator / root).log()

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return _SneakyWithLogdet.apply(x, self.slope)


def _derivative(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    """``r = √(1+x²)`` and ``q = (r + αx)/(1+α)``, whose quotient is ``σ'(x) = q/r``."""
    # No overflow of squares; ONNX knows no hypot.
    root = root_of_one_plus_square(x) if torch.onnx.is_in_onnx_export() else torch.hypot(x, x.new_ones(()))
    # r = |x| + 1/(r + |x|), and (|x| + αx)/(1+α) is |x| with the slope s on the left: a leaky ReLU of slope −s.
    rest = x.abs().add_(root).reciprocal_()
    return root, nn.functional.leaky_relu(x, -slope).add_(rest, alpha=(1 + slope) / 2)


def _value(x: Tensor, root: Tensor, numerator: Tensor, slope: float) -> Tensor:
    """``σ(x) = x (q + 1/(1+α))/(1 + r)``; overwrites q and r."""
    return numerator.add_((1 + slope) / 2).div_(root.add_(1)).mul_(x)


class _SneakyFunction(torch.autograd.Function):
    """One autograd node that saves x. As elementwise operations, it takes four times as long and saves them all.

    Most of the time goes into memory for results, so results that only this file sees are overwritten.
    """

    generate_vmap_rule = True  # for torch.func

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Any) -> None:
        x, ctx.slope = inputs
        ctx.save_for_backward(x)


class _Sneaky(_SneakyFunction):
    """``σ(x)``, and ``∇x = ∇y q/r``."""

    @staticmethod
    def forward(x: Tensor, slope: float) -> Tensor:
        return _value(x, *_derivative(x, slope), slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        root, numerator = _derivative(x, ctx.slope)
        return grad * numerator.div_(root), None


class _SneakyWithLogdet(_SneakyFunction):
    """``σ(x)`` and ``Σ log σ'(x)``, whose gradient is ``α/((1+α) q r²)``."""

    @staticmethod
    def forward(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        root, numerator = _derivative(x, slope)
        logdet = sum_per_sample((numerator / root).log_())
        return _value(x, root, numerator, slope), logdet

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_logdet: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        root, numerator = _derivative(x, ctx.slope)
        per_sample = (1 - ctx.slope) / 2 * grad_logdet.reshape(-1, *[1] * (x.ndim - 1))
        # Divided one by one: the square of r may overflow.
        return (grad * numerator + per_sample / numerator / root) / root, None


class InvertibleLeakyReLU(Activation):
    """``σ(x) = max(x, s x)``.

    It has a kink at zero: its log-determinant jumps where an input changes sign and is constant otherwise, so training
    a flow gets no gradient from it. `SneakyReLU` has no kink.

    Example:
        >>> InvertibleLeakyReLU(slope=0.5)(torch.tensor([[-1.0, 2.0]]))
        tensor([[-0.5000,  2.0000]])
    """

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, self.slope)

    def inverse(self, y: Tensor) -> Tensor:
        return nn.functional.leaky_relu(y, 1 / self.slope)

    def log_derivative(self, x: Tensor) -> Tensor:
        return (x < 0) * x.new_full((), math.log(self.slope))


class LearnedLeakyReLU(InvertibleModule):
    """``y = exp(α) x`` for ``x ≥ 0``, ``y = exp(β) x`` below, with one learned α and one β per channel.

    State (B, C, *spatial), or (B, C). The log-determinant is the sum of the α and β that apply; like that of
    `InvertibleLeakyReLU` it jumps where an input changes sign.

    Args:
        channels: number of channels C.
        positive, negative: slopes at the start.
        symmetric: ``β = −α``, so that the inverse has the slopes exchanged; ``negative`` does not count.
        learnable: whether the slopes are trained.

    Raises:
        ValueError: for a slope that is not positive, or another number of channels.

    Example:
        >>> LearnedLeakyReLU(1, positive=2.0, negative=0.5)(torch.tensor([[[-1.0, 2.0]]])).detach()
        tensor([[[-0.5000,  4.0000]]])
    """

    def __init__(
        self,
        channels: int,
        positive: float = 2.0,
        negative: float = 0.5,
        *,
        symmetric: bool = False,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        if min(positive, negative) <= 0:
            raise ValueError(f"expected positive slopes, got {positive} and {negative}")
        self.log_positive = nn.Parameter(torch.full((channels,), math.log(positive)), requires_grad=learnable)
        if not symmetric:
            self.log_negative = nn.Parameter(torch.full((channels,), math.log(negative)), requires_grad=learnable)
        self.symmetric = symmetric

    def log_slope(self, x: Tensor) -> Tensor:
        """The logarithm of the slope at x, or at a y, which has the same sign."""
        negative = -self.log_positive if self.symmetric else self.log_negative
        return torch.where(x < 0, per_channel(negative, x), per_channel(self.log_positive, x))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_slope(x).exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_slope(y)).exp()

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_slope = self.log_slope(x)
        return x * log_slope.exp(), sum_per_sample(log_slope)

    def extra_repr(self) -> str:
        return f"{self.log_positive.shape[0]}, symmetric={self.symmetric}"
