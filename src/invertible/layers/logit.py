"""Elementwise maps between intervals and the real line: what a density of images puts before its flow."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..log_determinants import constant_logdet, sum_per_sample
from ..module import InvertibleModule


class FixedAffine(InvertibleModule):
    """``y = a x + b`` with a fixed scale a and shift b; ``log|det dy/dx| = D log|a|`` for D numbers per sample.

    State (B, C, *spatial) of any size.

    Args:
        scale: a.
        shift: b.

    Raises:
        ValueError: for ``a = 0``.

    Example:
        >>> FixedAffine(2.0, shift=1.0)(torch.tensor([[1.0, 2.0]]))
        tensor([[3., 5.]])
    """

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        if scale == 0:
            raise ValueError("expected a scale other than zero, got 0")
        self.scale, self.shift = float(scale), float(shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift

    def inverse(self, y: Tensor) -> Tensor:
        return (y - self.shift) / self.scale

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self(x)  # of real numbers; x may be an image of integers
        return y, constant_logdet(math.prod(x.shape[1:]) * math.log(abs(self.scale)), y)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, shift={self.shift:g}"


class Logit(InvertibleModule):
    """``y = log x − log(1 − x)``, from (0, 1) to ℝ; ``log|det dy/dx| = −Σ log x (1 − x)``.

    Its inverse is the sigmoid, whose log-determinant ``−Σ softplus(y) + softplus(−y)`` is taken from y: where x rounds
    to 0 or 1, it is still exact.

    State (B, C, *spatial) of any size.

    Example:
        >>> y, logdet = Logit().forward_and_logdet(torch.full((1, 4), 0.5))
        >>> y, logdet  # zeros, 4 log 4
        (tensor([[0., 0., 0., 0.]]), tensor([5.5452]))
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.log() - torch.log1p(-x)

    def inverse(self, y: Tensor) -> Tensor:
        return torch.sigmoid(y)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_x, log_rest = x.log(), torch.log1p(-x)
        return log_x - log_rest, -sum_per_sample(log_x + log_rest)

    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(y), -sum_per_sample(F.softplus(y) + F.softplus(-y))
