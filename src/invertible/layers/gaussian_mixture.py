"""Gaussian mixtures whose parameters are a condition: mixture density networks, as bijections."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import as_precise_as, check_positive
from ..log_determinants import sum_per_sample
from ..module import Condition, InvertibleModule, tensors_of


class GaussianMixture(InvertibleModule):
    """``z = U_k (x − μ_k)``: from a component of a Gaussian mixture to a standard normal latent, and back.

    The precision matrix of component k is ``U_kᵀ U_k`` with an upper triangular U_k. ``log|det dz/dx|`` is the sum of
    the logarithms of its diagonal. The condition is a tuple of means (B, K, D), factors (B, K, D (D + 1) / 2) and
    components: numbers k (B,) for states (B, D). Without components, a state (B, K, D) holds one point for each. The
    factors are the logarithms of the diagonal, then the entries above it, row by row. (FrEIA's GaussianMixtureModel;
    Kruse, 2020.)

    Args:
        dim: D.

    Raises:
        ValueError: for a state or a condition of another shape.

    Example:
        >>> means, factors = torch.zeros(8, 3, 2), torch.zeros(8, 3, 3)  # 3 standard normals in 2 dimensions
        >>> first = torch.zeros(8, dtype=torch.long)
        >>> z, logdet = GaussianMixture(2).forward_and_logdet(torch.randn(8, 2), (means, factors, first))
    """

    takes_condition = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_positive(dim=dim)
        self.dim = dim

    def forward(self, x: Tensor, condition: Condition = None) -> Tensor:
        means, upper, _ = self._component(x, condition)
        return _multiplied(upper, x - means)

    def inverse(self, y: Tensor, condition: Condition = None) -> Tensor:
        means, upper, _ = self._component(y, condition)
        wide = torch.promote_types(y.dtype, torch.float32)  # torch solves nothing in half precision
        columns = y.to(wide)[..., None]
        return torch.linalg.solve_triangular(upper.to(wide), columns, upper=True)[..., 0].to(y.dtype) + means

    def forward_and_logdet(self, x: Tensor, condition: Condition = None) -> tuple[Tensor, Tensor]:
        _, _, log_diagonal = self._component(x, condition)
        return self(x, condition), sum_per_sample(log_diagonal)

    def log_likelihood(self, x: Tensor, log_weights: Tensor, means: Tensor, factors: Tensor) -> Tensor:
        """``log p(x) = log Σ_k w_k N(x; μ_k, (U_kᵀ U_k)⁻¹)`` of shape (B,), in nats.

        Args:
            x: (B, D).
            log_weights: (B, K), up to a constant: the outputs of a network.
            means, factors: see above.

        Raises:
            ValueError: for other shapes.
        """
        each = (x.shape[0], *means.shape[1:2])
        shapes = ((x.shape[0], self.dim), each, (*each, self.dim), (*each, self._num_entries))
        found = tuple(tuple(part.shape) for part in (x, log_weights, means, factors))
        if found != shapes:
            raise ValueError(f"expected x, log_weights, means and factors of shapes {shapes}, got {found}")
        upper, log_diagonal = triangular(factors, self.dim)
        z = _multiplied(upper, x[:, None] - means)  # (B, K, D)
        log_normal = -0.5 * (z.square().sum(-1) + self.dim * math.log(2 * math.pi))
        return torch.logsumexp(log_weights.log_softmax(-1) + log_normal + log_diagonal.sum(-1), dim=-1)

    def _component(self, state: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, U and the logarithm of its diagonal for each point of the state."""
        parts = tensors_of(condition)
        if len(parts) not in (2, 3):
            raise ValueError(f"expected means, factors and possibly components as the condition, got {len(parts)}")
        means, factors = (as_precise_as(state, part) for part in parts[:2])
        samples, components = state.shape[0], means.shape[1:2]
        points = (samples, *(components if len(parts) == 2 else ()), self.dim)
        shapes = ((samples, *components, self.dim), (samples, *components, self._num_entries), points)
        found = tuple(tuple(part.shape) for part in (means, factors, state))
        if found != shapes:
            raise ValueError(f"expected means, factors and state of shapes {shapes}, got {found}")
        if len(parts) == 3:
            if parts[2].shape != (samples,):
                raise ValueError(f"expected components of shape {(samples,)}, got {tuple(parts[2].shape)}")
            rows = torch.arange(samples, device=state.device)
            means, factors = (part[rows, parts[2].long()] for part in (means, factors))
        return means, *triangular(factors, self.dim)

    @property
    def _num_entries(self) -> int:
        """Of a triangular matrix."""
        return self.dim * (self.dim + 1) // 2

    def extra_repr(self) -> str:
        return f"{self.dim}"


def _multiplied(upper: Tensor, x: Tensor) -> Tensor:
    """``U x`` (…, D), by sums of products: autocast would compute a matrix product in half precision."""
    return (upper * x[..., None, :]).sum(-1)


def triangular(factors: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """U (…, D, D) and the logarithm of its diagonal (…, D), from factors (…, D (D + 1) / 2)."""
    log_diagonal, above = factors.split((dim, factors.shape[-1] - dim), dim=-1)
    row, column = torch.triu_indices(dim, dim, 1, device=factors.device)
    upper = torch.diag_embed(log_diagonal.exp())
    upper[..., row, column] = above
    return upper, log_diagonal


def draw_components(log_weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Components (B,) drawn with probabilities ``softmax(log_weights)``, of shape (B, K).

    Args:
        log_weights: of the components, (B, K).
        generator: source of the draws; torch's own by default.

    Example:
        >>> draw_components(torch.tensor([[0.0, -100.0], [-100.0, 0.0]]))
        tensor([0, 1])
    """
    return torch.multinomial(log_weights.softmax(-1), 1, generator=generator)[:, 0]
