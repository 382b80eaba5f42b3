"""Residual blocks with their options, for the table of layers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from src.invertible.layers.activations import SneakyReLU
from src.invertible.layers.lipschitz import LipSwish
from src.invertible.layers.logdet import RussianRouletteLogDet, TruncatedLogDet
from src.invertible.layers.residual import ResidualBlock
from src.models.blocks import CONVOLUTIONS
from tests.invertible.table.samples import SPATIAL, Case

INVERSE_TOLERANCE: dict[str, float] = {}  # inverted to rounding error: the table's own 1e-10 holds


def convolutions(
    spatial_dims: int, activation: Callable[[], nn.Module] = nn.ELU, **options: str
) -> Callable[[int, int], nn.Module]:
    convolution = CONVOLUTIONS[spatial_dims]
    return lambda dims_in, dims_out: nn.Sequential(
        activation(),
        convolution(dims_in, 5, 3, padding=1, **options),
        activation(),
        convolution(5, 5, 1),
        activation(),
        convolution(5, dims_out, 3, padding=1, **options),
    )


def dense(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, 7), nn.Tanh(), nn.Linear(7, dims_out))


LAYERS: dict[str, Case] = {
    "residual-vector": (lambda: ResidualBlock(5, dense), (3, 5)),
    "residual-vector-linear": (lambda: ResidualBlock(3, nn.Linear, coefficient=0.6), (2, 3)),
    "residual-1d-sneaky-relu": (lambda: ResidualBlock(2, convolutions(1, SneakyReLU)), (2, 2, 8)),
    "residual-2d-lipswish": (lambda: ResidualBlock(3, convolutions(2, LipSwish), coefficient=0.97), (2, 3, 4, 6)),
}
for d, size in SPATIAL.items():
    LAYERS |= {
        f"residual-{d}d": (lambda d=d: ResidualBlock(2, convolutions(d)), (2, 2, *size)),
        f"residual-{d}d-circular": (
            lambda d=d: ResidualBlock(2, convolutions(d, nn.Softplus, padding_mode="circular")),
            (2, 2, *size),
        ),
    }

# Log-determinants that are random: the oracle of the Jacobian holds for their mean only, the others under one seed.
STOCHASTIC: dict[str, Case] = {
    "residual-vector-truncated": (lambda: ResidualBlock(5, dense, logdet="truncated"), (3, 5)),
    "residual-2d-truncated-3": (
        lambda: ResidualBlock(2, convolutions(2), logdet=TruncatedLogDet(num_terms=3)),
        (2, 2, 4, 6),
    ),
    "residual-vector-roulette": (lambda: ResidualBlock(5, dense, logdet="roulette"), (3, 5)),
    "residual-2d-roulette-no-exact-terms": (
        lambda: ResidualBlock(2, convolutions(2), logdet=RussianRouletteLogDet(0, 0.2)),
        (2, 2, 4, 6),
    ),
}
