"""Circular convolution as an invertible layer: its inverse and its log-determinant, frequency by frequency."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import as_precise_as, chosen, per_channel, per_dimension
from ..engine.walk import LeafBackward, backward_rule, default_rule
from ..export import under_torch_func
from ..module import InvertibleModule
from .circular import convolve_circularly
from .orthogonal import random_orthogonal

# Up to here the forward pass convolves, beyond it multiplies in the Fourier domain. On CPU the two break even at about
# 16 taps for large batches and above 50 for single images (16 to 64 channels, 1D to 3D).
MAX_DIRECT_TAPS = 27

# Operator norm of the random part of a new kernel: the layer starts with a condition number of about 1.1 / 0.9.
INITIAL_PERTURBATION = 0.1


class FourierConvolution(InvertibleModule):
    """Circular convolution of C channels with C channels (Finzi et al., 2019).

    ``y(n) = b + Σ_k W(k) x(n + k − c)``, indices modulo the image size, with the matrices W(k) of shape (C, C) and the
    centre ``c = ⌊(kernel_size − 1)/2⌋``, as `torch.nn.functional.conv2d` has it for ``padding="same"``. In the Fourier
    domain it is one matrix per frequency, ``ŷ(f) = Ŵ(f) x̂(f)`` with ``Ŵ(f) = Σ_k W(k) exp(2πi f·(k − c)/N)``. Hence

    ``x̂(f) = Ŵ(f)⁻¹ ŷ(f)`` and ``log|det dy/dx| = Σ_f log|det Ŵ(f)|``.

    State (B, C, *spatial) of any spatial size; a kernel larger than the image wraps around. Evaluated in at least
    float32, whatever autocast says.

    Args:
        channels: number of channels C.
        kernel_size: taps per spatial dimension, odd or even.
        bias: add b, one number per channel.
        init: centre tap at the start, ``orthogonal`` (random) or ``identity``; a small random kernel is added.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for unknown options, or a state of another shape.
        torch.linalg.LinAlgError: from ``inverse``, where Ŵ(f) is singular; it names f.

    Example:
        >>> layer = FourierConvolution(4, kernel_size=3, spatial_dims=2)
        >>> y, logdet = layer.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        spatial_dims: int,
        bias: bool = True,
        init: str = "orthogonal",
    ) -> None:
        super().__init__()
        self.kernel_size = per_dimension(kernel_size, spatial_dims, "kernel_size")
        self.weight = nn.Parameter(_initial_kernel(init, channels, self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        state = self._checked(x)
        weight, bias = self._cast(state)
        with torch.autocast(x.device.type, enabled=False):
            if self._convolves(state):
                y = convolve_circularly(state, weight, bias)
            else:
                y = _add(_multiply(spectrum(weight, state.shape[2:]), state), bias)
            return as_precise_as(x, y)

    def inverse(self, y: Tensor) -> Tensor:
        state = self._checked(y)
        weight, bias = self._cast(state)
        spatial = state.shape[2:]
        with torch.autocast(y.device.type, enabled=False):
            factors = _factorise(spectrum(weight, spatial), spatial)
            columns = to_frequencies(_add(state, None if bias is None else -bias))
            return as_precise_as(y, from_frequencies(torch.linalg.lu_solve(*factors, columns), spatial))

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self._checked(x)
        weight, bias = self._cast(state)
        with torch.autocast(x.device.type, enabled=False):
            matrices = spectrum(weight, state.shape[2:])
            convolves = self._convolves(state)
            y = convolve_circularly(state, weight, bias) if convolves else _add(_multiply(matrices, state), bias)
            logdet = logabsdet(matrices, state.shape[-1])
        return as_precise_as(x, y), logdet.expand(x.shape[0])

    def _convolves(self, state: Tensor) -> bool:
        """Whether the forward pass convolves, and not multiplies in the Fourier domain."""
        fits = all(k <= n for k, n in zip(self.kernel_size, state.shape[2:], strict=True))
        return fits and math.prod(self.kernel_size) <= MAX_DIRECT_TAPS

    def _checked(self, x: Tensor) -> Tensor:
        """The state in the precision of the computation."""
        channels, d = self.weight.shape[0], len(self.kernel_size)
        if x.ndim != 2 + d or x.shape[1] != channels:
            raise ValueError(f"expected a state of shape (B, {channels}, {d} spatial sizes), got {tuple(x.shape)}")
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def _cast(self, state: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.weight.to(state.dtype), None if self.bias is None else self.bias.to(state.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, kernel_size={self.kernel_size}, bias={self.bias is not None}"


def spectrum(weight: Tensor, spatial: Sequence[int]) -> Tensor:
    """``Ŵ(f)`` of a kernel (C, C, *kernel_size), as (F₁, …, F_d, C, C) with the Hermitian half in the last dimension.

    One small matrix product per dimension: faster than an FFT of the kernel padded to the image, and a kernel larger
    than the image aliases by itself, since the phases are periodic.

    Args:
        weight: the kernel.
        spatial: the image's sizes N₁, …, N_d.

    Example:
        >>> spectrum(torch.randn(4, 4, 3, 3), spatial=[8, 8]).shape
        torch.Size([8, 5, 4, 4])
    """
    complex_dtype = torch.promote_types(weight.dtype, torch.complex64)
    halved = [*spatial[:-1], spatial[-1] // 2 + 1]
    result = weight.movedim((0, 1), (-2, -1)).to(complex_dtype)  # (*kernel_size, C, C)
    for dim, (size, num_frequencies) in reversed(list(enumerate(zip(spatial, halved, strict=True)))):
        phases = _phases(size, num_frequencies, result.shape[dim], weight.device).to(complex_dtype)
        taps = result.movedim(dim, 0)
        # The first dimension comes last, with by far the largest product. It is already in place, so nothing is copied.
        result = (phases @ taps.flatten(1)).unflatten(1, taps.shape[1:]).movedim(0, dim)
    return result


def _phases(size: int, num_frequencies: int, taps: int, device: torch.device) -> Tensor:
    """``exp(2πi f (k − c)/N)``, of shape (F, K), computed where it is needed: a GPU would wait for a copy."""
    centre = (taps - 1) // 2
    frequencies = torch.arange(num_frequencies, device=device)[:, None]
    offsets = torch.arange(-centre, taps - centre, device=device)
    angles_rad = 2 * math.pi / size * (frequencies * offsets % size).double()  # modulo N: no rounding of large angles
    return torch.complex(angles_rad.cos(), angles_rad.sin())


def logabsdet(matrices: Tensor, size: int) -> Tensor:
    """``Σ_f log|det Ŵ(f)|`` over all frequencies, from the half (…, F_d, C, C) and the last dimension's size N_d.

    Args:
        matrices: the half of `spectrum`.
        size: N_d.

    Raises:
        RuntimeError: in a backward pass with ``create_graph``, as its gradient has none of its own; `torch.func`
            differentiates as often as it is asked.

    Example:
        >>> logabsdet(spectrum(2 * torch.eye(3)[:, :, None], spatial=[8]), size=8)  # 8 frequencies, 3 log 2 each
        tensor(16.6355)
    """
    if under_torch_func():
        per_frequency = torch.linalg.slogdet(matrices).logabsdet
        return (per_frequency * _multiplicity(per_frequency, size)).sum()
    return _LogAbsDet.apply(matrices, size)


class _LogAbsDet(torch.autograd.Function):
    """``∇Ŵ = Ŵ⁻ᴴ``, from the LU factors of the forward pass.

    The factors are those of the transposed matrices, which have the same determinant and LAPACK's memory layout, and
    the inverses are solved for from the right. So nothing of this size is copied.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, size: int) -> Tensor:
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrices.mT)
        per_frequency = factors.diagonal(dim1=-2, dim2=-1).abs().log_().sum(-1)
        counts = _multiplicity(per_frequency, size)
        ctx.save_for_backward(factors, pivots, counts)
        return (per_frequency * counts).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the log-determinant of a Fourier convolution cannot be differentiated twice (create_graph=True): its "
                "gradient is computed from LU factors, without a graph"
            )
        factors, pivots, counts = ctx.saved_tensors
        inverses = _inverses(factors, pivots).mul_((grad * counts)[:, None, None])
        return inverses.conj(), None


def _multiplicity(half: Tensor, size: int) -> Tensor:
    """How often each frequency of a half (…, F_d) occurs in the whole, for the last dimension's size N_d; (F_d,)."""
    # Ŵ(−f) is the conjugate of Ŵ(f), so the missing half equals the one present. The planes f_d = 0 and, for even N_d,
    # f_d = N_d/2 are their own mirror images and present as a whole.
    counts = torch.full((half.shape[-1],), 2.0, dtype=half.dtype, device=half.device)
    counts[:1].fill_(1.0)  # indexing with one number would copy the value from the host
    if size % 2 == 0:
        counts[-1:].fill_(1.0)
    return counts


def to_frequencies(x: Tensor) -> Tensor:
    """A state (B, C, *spatial) as one matrix per frequency, (F₁, …, F_d, C, B)."""
    dims = list(range(2, x.ndim))
    if x.shape[0]:
        coefficients = torch.fft.rfftn(x, dim=dims)
    else:  # MKL refuses a batch without samples
        half = x[..., : x.shape[-1] // 2 + 1]
        coefficients = torch.complex(half, torch.zeros_like(half))
    # Contiguous: on CPU, products of small matrices are then up to 5 times as fast, an inverse FFT 1.5 times.
    return coefficients.permute(*dims, 1, 0).contiguous()


def from_frequencies(columns: Tensor, spatial: Sequence[int]) -> Tensor:
    """The inverse of `to_frequencies`."""
    d = len(spatial)
    coefficients = columns.permute(d + 1, d, *range(d)).contiguous()
    if not coefficients.shape[0]:
        return coefficients.real[..., :1].expand(*coefficients.shape[:-1], spatial[-1])
    return torch.fft.irfftn(coefficients, s=list(spatial), dim=list(range(2, 2 + d)))


def _multiply(matrices: Tensor, x: Tensor) -> Tensor:
    """The state with ``Ŵ(f) x̂(f)``."""
    return from_frequencies(matrices @ to_frequencies(x), x.shape[2:])


def _factorise(matrices: Tensor, spatial: Sequence[int]) -> tuple[Tensor, Tensor]:
    """LU factors and pivots of ``Ŵ(f)``, of which none may be singular."""
    factors, permutation, _ = torch.linalg.lu_factor_ex(matrices)
    diagonals = factors.detach().diagonal(dim1=-2, dim2=-1).abs()  # (F₁, …, F_d, C)
    pivots, largest = diagonals.amin(-1), diagonals.amax()
    # In floating point a singular matrix leaves a pivot of the size of a rounding error, seldom a zero.
    tolerance = diagonals.shape[-1] * torch.finfo(diagonals.dtype).eps * largest
    if not bool((pivots > tolerance).all()):
        worst = torch.unravel_index(pivots.nan_to_num(nan=-1.0).argmin(), pivots.shape)
        frequency = tuple(index.item() for index in worst)
        raise torch.linalg.LinAlgError(
            f"expected a kernel that is invertible at every frequency, got a singular matrix at frequency {frequency} "
            f"of an image of size {tuple(spatial)} (smallest pivot {pivots.min().item():.1e}, largest pivot of all "
            f"frequencies {largest.item():.1e})"
        )
    return factors, permutation


def _inverses(factors: Tensor, pivots: Tensor) -> Tensor:
    """``Ŵ(f)⁻¹`` from LU factors and pivots."""
    identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    return torch.linalg.lu_solve(factors, pivots, identity.expand_as(factors), left=False)


def _add(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + per_channel(bias, x)


def _initial_kernel(init: str, channels: int, kernel_size: tuple[int, ...]) -> Tensor:
    centres = {"orthogonal": lambda: random_orthogonal(1, channels)[0], "identity": lambda: torch.eye(channels)}
    taps = math.prod(kernel_size)
    # Ŵ(f) of white noise of deviation s has a norm of about 2 s √(K C).
    kernel = torch.randn(channels, channels, *kernel_size) * (INITIAL_PERTURBATION / (2 * math.sqrt(taps * channels)))
    centre: tuple[Any, ...] = (..., *((k - 1) // 2 for k in kernel_size))
    kernel[centre] += chosen("init", init, centres)().to(kernel.dtype)
    return kernel


@backward_rule(FourierConvolution)
def fourier_convolution(
    leaf: LeafBackward, layer: FourierConvolution, y: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """``x̂ = Ŵ⁻¹ ŷ``, ``∇x̂ = Ŵᴴ ∇ŷ``, ``∇Ŵ = ∇ŷ x̂ᴴ/N + ∇logdet Ŵ⁻ᴴ``: one factorisation, no second forward pass."""
    if leaf.grad_logdet is None:  # then the gradient of the spectrum costs as much as what the rule saves
        return default_rule(leaf, layer, y, grad)
    state, grad_state = layer._checked(y), layer._checked(grad)
    spatial = state.shape[2:]
    with torch.autocast(y.device.type, enabled=False):
        with torch.enable_grad():
            weight, bias = layer._cast(state)
            tracked = spectrum(weight, spatial)
        matrices = tracked.detach()
        y_columns = to_frequencies(_add(state, None if bias is None else -bias.detach()))
        grad_columns = to_frequencies(grad_state)
        inverses = _inverses(*_factorise(matrices, spatial))
        x_columns = inverses @ y_columns
        grad_matrices = grad_columns @ x_columns.mH / math.prod(spatial) + leaf.grad_logdet.sum() * inverses.mH
        counts = _multiplicity(matrices.real[..., 0, 0], spatial[-1])
        leaf.differentiate_sparsely(tracked, (), grad_matrices * counts[:, None, None])
        if bias is not None:
            leaf.differentiate_sparsely(bias, (), grad_state.transpose(0, 1).flatten(1).sum(1))
        x, grad_x = (from_frequencies(c, spatial) for c in (x_columns, matrices.mH @ grad_columns))
        return x.to(y.dtype), grad_x.to(grad.dtype)
