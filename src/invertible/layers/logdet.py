"""Estimators of ``log det(I + ∂g/∂x)`` for a contraction g: exact, truncated, and unbiased."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..arguments import check_positive, chosen
from ..log_determinants import sum_per_sample


class LogDetEstimator(Protocol):
    """Estimates ``log det(I + J)``, ``J = ∂g/∂x``, for each sample of a batch.

    ``g`` was computed from ``x`` with a graph, and its samples do not depend on each other. The result has shape (B,),
    in nats. With ``create_graph`` it can be differentiated once, where its gradient may be an estimate, too. Random
    draws come from the global generators, so that the engine can repeat them.

    Example:
        >>> estimator: LogDetEstimator = TruncatedLogDet(num_terms=5)
        >>> block = ResidualBlock(2, lambda i, o: torch.nn.Linear(i, o), logdet=estimator)
    """

    def __call__(self, g: Tensor, x: Tensor, *, create_graph: bool) -> Tensor: ...


@dataclass(frozen=True)
class ExactLogDet:
    """``log det(I + J)`` from the dense Jacobian: n² numbers per sample of n numbers, for small n.

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> ExactLogDet()(0.5 * x, x, create_graph=False)  # 2 log 1.5
        tensor([0.8109])
    """

    def __call__(self, g: Tensor, x: Tensor, *, create_graph: bool) -> Tensor:
        if not x.shape[0]:
            return sum_per_sample(g)
        n = x[0].numel()
        identity = torch.eye(n, dtype=g.dtype, device=g.device)
        # Row i of every sample's Jacobian at once: samples do not depend on each other.
        outputs = identity.reshape(n, 1, *g.shape[1:]).expand(n, *g.shape)
        (rows,) = torch.autograd.grad(
            g, x, outputs, retain_graph=True, create_graph=create_graph, is_grads_batched=True
        )
        jacobian = rows.transpose(0, 1).reshape(x.shape[0], n, n)  # (B, outputs, inputs)
        precision = torch.promote_types(x.dtype, torch.float32)
        return torch.linalg.slogdet(identity.to(precision) + jacobian.to(precision)).logabsdet


@dataclass(frozen=True)
class TruncatedLogDet:
    """The first terms of the power series, with Hutchinson's estimate of the traces (Behrmann et al., 2019).

    ``Σ_{k=1}^{n} (−1)^{k+1} tr(J^k) / k``, where ``tr(J^k) ≈ vᵀ J^k v`` with one random ``v`` of ±1 per sample. Biased:
    its expectation lacks the terms after the n-th, which sum to at most ``N c^{n+1} / ((n + 1)(1 − c))`` for a
    Lipschitz constant c < 1 and N numbers per sample.

    Args:
        num_terms: number n of terms.

    Raises:
        ValueError: if it is below 1.

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> TruncatedLogDet(num_terms=2)(0.5 * x, x, create_graph=False)  # 2 (1/2 − 1/8)
        tensor([0.7500])
    """

    num_terms: int = 10

    def __post_init__(self) -> None:
        check_positive(num_terms=self.num_terms)

    def __call__(self, g: Tensor, x: Tensor, *, create_graph: bool) -> Tensor:
        return _power_series(g, x, [1.0] * self.num_terms, create_graph=create_graph)


@dataclass(frozen=True)
class RussianRouletteLogDet:
    """The power series cut off at random and reweighted, so that the expectation is exact (Chen et al., 2019).

    After ``num_exact_terms`` terms each further one is computed with probability ``1 − p``, given that the one before
    was; those computed are divided by the probability to get that far. One cut-off per call, for the whole batch.

    Args:
        num_exact_terms: number of terms that are always computed.
        stop_probability: p. The variance is finite if ``1 − p > c²`` with the Lipschitz constant c.

    Raises:
        ValueError: for a negative number of terms, or a probability outside (0, 1).

    Example:
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> RussianRouletteLogDet(num_exact_terms=8)(0.5 * x, x, create_graph=False).shape
        torch.Size([1])
    """

    num_exact_terms: int = 2
    stop_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.num_exact_terms < 0:
            raise ValueError(f"expected num_exact_terms >= 0, got {self.num_exact_terms}")
        if not 0 < self.stop_probability < 1:
            raise ValueError(f"expected a stop_probability between 0 and 1, got {self.stop_probability}")

    def __call__(self, g: Tensor, x: Tensor, *, create_graph: bool) -> Tensor:
        return _power_series(g, x, self._draw_weights(), create_graph=create_graph)

    def _draw_weights(self) -> list[float]:
        weights = [1.0] * self.num_exact_terms
        reached = 1.0
        while True:
            reached *= 1 - self.stop_probability
            if torch.rand(()).item() < self.stop_probability:
                return weights
            weights.append(1 / reached)


ESTIMATORS: dict[str, Any] = {"exact": ExactLogDet, "truncated": TruncatedLogDet, "roulette": RussianRouletteLogDet}


def logdet_estimator(logdet: str | LogDetEstimator, num_terms: int | None = None) -> LogDetEstimator:
    """The estimator of that name (``exact``, ``truncated`` or ``roulette``), or the one given.

    Args:
        logdet: name or estimator.
        num_terms: of the truncated series, or the terms that roulette always computes; by default the class's.

    Raises:
        ValueError: for an unknown name, or a number of terms that the estimator refuses.

    Example:
        >>> logdet_estimator("truncated", num_terms=5).num_terms
        5
    """
    if not isinstance(logdet, str):
        return logdet
    estimator = chosen("logdet", logdet, ESTIMATORS)
    return estimator() if num_terms is None or estimator is ExactLogDet else estimator(num_terms)


def _power_series(g: Tensor, x: Tensor, weights: Sequence[float], *, create_graph: bool) -> Tensor:
    """``Σ_k w_k (−1)^{k+1} vᵀ J^k v / k``, with ``v`` drawn from ±1: its covariance is I, its fourth moments least.

    Its gradient is ``wᵀ ∂J v`` with ``w = Σ_k w_k (−Jᵀ)^{k−1} v``, the same in expectation as that of the sum, since
    ``∂ tr(J^k) = k tr(J^{k−1} ∂J)``. So it passes through one product with J instead of through all of them: half the
    time of a training step with 5 terms, and the memory of one term (Chen et al., 2019, section 3.2).
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    if not weights:
        # Zero, and part of the graph all the same: a loss of this log-determinant alone can be differentiated.
        return sum_per_sample(g - g)
    v = (2 * torch.randint_like(x, 2, requires_grad=False) - 1).to(precision)
    total, plain = x.new_zeros(x.shape[0], dtype=precision), x.new_zeros(x.shape[0], dtype=precision)
    product, w, n = v, torch.zeros_like(v), len(weights)
    for k, weight in enumerate(weights, start=1):
        w = w - weight * (-1) ** k * product
        if create_graph and k == n:
            break
        product = _transposed_product(g, x, product, create_graph=False)  # (Jᵀ)^k v
        term = -weight * (-1) ** k * sum_per_sample(product * v)
        total, plain = total + term / k, plain + term
    if not create_graph:
        return total
    slope = sum_per_sample(_transposed_product(g, x, w, create_graph=True) * v)
    # The slope is the sum of all terms without their 1/k: what it has beyond the others is the last one.
    return total + (slope.detach() - plain) / n + (slope - slope.detach())


def _transposed_product(g: Tensor, x: Tensor, vector: Tensor, *, create_graph: bool) -> Tensor:
    """``Jᵀ u``, ``J = ∂g/∂x``, in the precision of u."""
    product = torch.autograd.grad(g, x, vector.to(g.dtype), retain_graph=True, create_graph=create_graph)[0]
    return product.to(vector.dtype)
