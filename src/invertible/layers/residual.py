"""Invertible residual blocks: the identity plus a contraction."""

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..arguments import check_channels, check_positive
from ..engine.replay import AutocastState
from ..engine.snapshot import Snapshot
from ..module import InvertibleModule, all_modules, trained_parameters
from .coupling import SubnetConstructor, make_subnet
from .lipschitz import bound_lipschitz, lipschitz_constant
from .logdet import LogDetEstimator, logdet_estimator
from .spectral_norm import SpectralNormalised, unwatched


class FixedPointWarning(RuntimeWarning):
    """A fixed-point iteration ended before it converged.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("error", FixedPointWarning)  # stop a program where a block is not inverted
    """


_PATIENCE = 3  # iterations without progress that end a fixed-point iteration


@dataclass(frozen=True)
class Convergence:
    """How a fixed-point iteration ended, for the worst sample of the batch.

    Attributes:
        iterations: how many it took.
        change: ``max|x_{k+1} − x_k|`` of the last one, relative to ``max|x_{k+1}|`` or the start's maximum.
        accepted: the largest change that counts as converged.

    Example:
        >>> block = ResidualBlock(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1))
        >>> x, report = block.inverse_with_report(torch.randn(2, 4, 8, 8))
        >>> report.converged
        True
    """

    iterations: int
    change: float
    accepted: float

    @property
    def converged(self) -> bool:
        return self.change <= self.accepted


def fixed_point(
    step: Callable[[Tensor], Tensor], start: Tensor, *, tolerance: float, max_iterations: int, rounding: float = 0.0
) -> tuple[Tensor, Convergence]:
    """Iterate ``x ← step(x)`` from ``start`` (B, …) until each sample changes by at most ``tolerance``, relative to its
    own maximum.

    Where the sample's ``start`` has a larger maximum, the change is relative to that: x is then a difference of larger
    numbers and has their rounding errors.

    A contraction reduces the Euclidean distance of successive iterates each time. Once it no longer does, rounding
    errors dominate: the sample is left as it is, and has converged if its change is at most ``rounding``. A sample that
    is no longer finite is left as well, while the others continue. ``step`` must map each sample independently.

    Warns:
        FixedPointWarning: if it ends without all samples having converged.
    """
    x, scale_of_start = start, _sizes(start, start)[1]
    moving = torch.ones(len(start), dtype=torch.bool)
    change, smallest = torch.zeros(len(start)), torch.full((len(start),), math.inf)
    stalled, iterations = torch.zeros(len(start), dtype=torch.long), 0
    while iterations < max_iterations and (moving.any() or not iterations):
        iterations, last, x = iterations + 1, x, step(x)
        if not moving.all():
            x = torch.where(moving.to(x.device).reshape(-1, *[1] * (x.ndim - 1)), x, last)
        difference, scale, distance = _sizes(x, last)
        scale = torch.maximum(scale, scale_of_start)
        change = torch.where(moving, difference / torch.where(scale == 0, 1, scale), change)
        stalled = torch.where(distance < smallest, 0, stalled + 1)
        smallest = torch.fmin(smallest, distance)
        moving &= ~((change <= tolerance) | (stalled >= _PATIENCE) | ~change.isfinite())
    worst = float(change.max()) if len(change) else 0.0
    report = Convergence(iterations, worst, max(tolerance, rounding))
    if not report.converged:
        failed = int((~(change <= report.accepted)).sum())
        warnings.warn(
            f"the fixed-point iteration did not converge for {failed} of {len(change)} samples: after "
            f"{report.iterations} iterations the relative change is {report.change:.1e}, expected at most "
            f"{report.accepted:.1e}. Use a smaller coefficient, which contracts faster, or a larger "
            "tolerance or max_iterations.",
            FixedPointWarning,
            stacklevel=2,
        )
    return x, report


def _sizes(x: Tensor, last: Tensor) -> Tensor:
    """``max|x − last|``, ``max|x|`` and ``|x − last|₂`` of each sample: (3, B), on the CPU."""
    if not x.numel():
        return torch.zeros(3, len(x))
    precision = torch.promote_types(x.dtype, torch.float32)  # half overflows
    x, last = (part.to(precision).reshape(len(part), -1) for part in (x, last))
    difference = x - last
    largest = difference.abs().amax(1)
    # In units of the largest number, or the squares overflow.
    distance = largest * (difference / torch.where(largest == 0, 1, largest)[:, None]).norm(dim=1)
    return torch.stack((largest, x.abs().amax(1), distance)).cpu()


class ResidualBlock(InvertibleModule):
    """``y = x + g(x)`` with a contraction g (i-ResNet, Behrmann et al., 2019; Residual Flows, Chen et al., 2019).

    Every linear layer and convolution of g is spectrally normalised to the coefficient c, and the rest of g does not
    expand, so ``Lip(g) ≤ c < 1`` and ``x ← y − g(x)`` converges to the inverse, by a factor of c per iteration or
    faster. The inverse is differentiated by the implicit function theorem, not through the iterations.

    Args:
        channels: number of channels C of the state.
        subnet: constructor of g, called as ``subnet(C, C)``: a `torch.nn.Sequential` of layers and activations, see
            `bound_lipschitz`.
        coefficient: c, the bound of each normalised layer.
        logdet: ``exact``, ``truncated``, ``roulette``, or an estimator of `logdet.py`.
        eval_logdet: the same for evaluation mode; None for that of training.
        tolerance: relative change at which the inversion ends; twice the rounding error by default.
        max_iterations: after so many the inversion ends with a `FixedPointWarning`.

    Raises:
        ValueError: for options outside these, a g that may not be a contraction or changes the shape of the state, or
            a state that does not have C channels.

    Example:
        >>> block, x = ResidualBlock(4, lambda i, o: torch.nn.Conv2d(i, o, 3, padding=1)), torch.randn(2, 4, 8, 8)
        >>> torch.allclose(block.inverse(block(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        channels: int,
        subnet: SubnetConstructor,
        *,
        coefficient: float = 0.9,
        logdet: str | LogDetEstimator = "exact",
        eval_logdet: str | LogDetEstimator | None = None,
        tolerance: float | None = None,
        max_iterations: int = 1000,
    ) -> None:
        super().__init__()
        if not 0 < coefficient < 1:
            raise ValueError(f"expected a coefficient between 0 and 1, got {coefficient}")
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"expected a positive tolerance, got {tolerance}")
        check_positive(max_iterations=max_iterations)
        self.channels = channels
        self.subnet = bound_lipschitz(make_subnet(subnet, channels, channels), coefficient)
        if not lipschitz_constant(self.subnet) < 1:
            raise ValueError(
                f"expected a contraction, got a subnet with Lipschitz constant {lipschitz_constant(self.subnet):.3g}"
            )
        self.logdet = logdet_estimator(logdet)
        self.eval_logdet = None if eval_logdet is None else logdet_estimator(eval_logdet)
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.last_inversion: Convergence | None = None

    def residual(self, x: Tensor) -> Tensor:
        """``g(x)``."""
        check_channels(x, self.channels)
        g = self.subnet(x)
        if g.shape != x.shape:
            raise ValueError(f"expected a subnet that keeps the shape {tuple(x.shape)}, got {tuple(g.shape)}")
        return g

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)

    def inverse(self, y: Tensor) -> Tensor:
        return _ImplicitInverse.apply(self, y, *trained_parameters(all_modules(self)))

    def inverse_with_report(self, y: Tensor) -> tuple[Tensor, Convergence]:
        """The inverse, without gradients, and how its iteration ended. `last_inversion` keeps that of `inverse`."""
        with torch.no_grad():
            return self.solve(lambda x: y - self.residual(x), y)

    def solve(self, step: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, Convergence]:
        """The fixed point of ``step``, to the block's tolerance."""
        tolerance = 2 * torch.finfo(start.dtype).eps if self.tolerance is None else self.tolerance
        device = start.device.type
        computed_in = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else start.dtype
        rounding = 8 * torch.finfo(computed_in).eps  # where sums of many terms may stall
        return fixed_point(step, start, tolerance=tolerance, max_iterations=self.max_iterations, rounding=rounding)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        create_graph = torch.is_grad_enabled()
        # The Jacobian needs a graph even if the caller wants none.
        with torch.inference_mode(False), torch.enable_grad(), nullcontext() if create_graph else unwatched():
            start = x
            if not (create_graph and x.requires_grad):  # a leaf; no graph takes tensors of inference mode
                start = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            g = self.residual(start)
            logdet = self.estimator(g, start, create_graph=create_graph)
        if not create_graph:
            g, logdet = g.detach(), logdet.detach()
        return x + g, logdet

    @property
    def estimator(self) -> LogDetEstimator:
        """The estimator of the present mode, training or evaluation."""
        return self.logdet if self.training or self.eval_logdet is None else self.eval_logdet

    def certified_lipschitz_constant(self) -> float:
        """Upper bound of ``Lip(g)`` at the input sizes met so far, not from power iteration but from the Fourier
        transform (`SpectralNormalised.certified_norm`)."""
        layers = (part for part in self.subnet.modules() if isinstance(part, SpectralNormalised))
        excess = math.prod(layer.certified_norm() / layer.coefficient for layer in layers)
        return lipschitz_constant(self.subnet) * excess

    def extra_repr(self) -> str:
        return f"logdet={self.logdet}" + (f", eval_logdet={self.eval_logdet}" if self.eval_logdet else "")


class _ImplicitInverse(torch.autograd.Function):
    """``x = f⁻¹(y)``, ``f = id + g``; with ``J = ∂g/∂x``, ``∇y = w`` where ``(I + Jᵀ) w = ∇x``, and
    ``∇θ = −(∂g/∂θ)ᵀ w``."""

    @staticmethod
    def forward(ctx: Any, block: ResidualBlock, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.block, ctx.autocast, ctx.parameters = block, AutocastState(y.device.type), parameters
        x, block.last_inversion = block.inverse_with_report(y)
        ctx.snapshot = Snapshot(block)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        ctx.snapshot.refuse_overwritten()
        with ctx.snapshot.reused(), torch.enable_grad(), ctx.autocast():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            g = ctx.block.residual(x)

        def step(w: Tensor) -> Tensor:
            return grad - torch.autograd.grad(g, x, w.to(g.dtype), retain_graph=True)[0]

        with ctx.autocast():
            w, _ = ctx.block.solve(step, grad)
        trained = [stand_in for stand_in in ctx.snapshot.originals if stand_in.requires_grad]
        grads = torch.autograd.grad(g, trained, -w.to(g.dtype), allow_unused=True) if trained else ()
        ctx.snapshot.refuse_changes()
        found = {ctx.snapshot.originals[stand_in]: part for stand_in, part in zip(trained, grads, strict=True)}
        return (None, w, *(found.get(parameter) for parameter in ctx.parameters))
