"""Layers that FrEIA has too and that belong to no other family, for the table of layers."""

from __future__ import annotations

from src.invertible import Inverse, Sequential
from src.invertible.layers.activations import LearnedLeakyReLU
from src.invertible.layers.linear import FixedLinear
from src.invertible.layers.resampling import HaarDownsampling
from tests.invertible.table.samples import Case

MATRIX = [[1.0, 2.0, 0.0], [0.5, -1.0, 1.0], [0.0, 0.3, 2.0]]
EVEN_SIZES = {1: (8,), 2: (4, 6), 3: (4, 2, 4)}

LAYERS: dict[str, Case] = {
    "learned-leaky-relu-vector": (lambda: LearnedLeakyReLU(5), (3, 5)),
    "learned-leaky-relu-symmetric": (lambda: LearnedLeakyReLU(5, 1.5, symmetric=True), (3, 5)),
    "learned-leaky-relu-fixed": (lambda: LearnedLeakyReLU(3, 0.7, 1.2, learnable=False), (2, 3, 4)),
    "fixed-linear-vector": (lambda: FixedLinear(MATRIX, [0.1, -2.0, 0.7]), (3, 3)),
    "haar-chain": (
        lambda: Sequential(
            HaarDownsampling(1, spatial_dims=2, order_by_wavelet=True),
            LearnedLeakyReLU(4),
            Inverse(HaarDownsampling(1, spatial_dims=2, rebalance=0.5)),
        ),
        (2, 1, 4, 4),
    ),
}
for d, size in EVEN_SIZES.items():
    LAYERS |= {
        f"learned-leaky-relu-{d}d": (lambda: LearnedLeakyReLU(3), (2, 3, *size)),
        f"fixed-linear-{d}d": (lambda: FixedLinear(MATRIX), (2, 3, *size)),
        f"haar-{d}d": (lambda d=d: HaarDownsampling(2, spatial_dims=d, rebalance=-0.7), (2, 2, *size)),
        f"haar-{d}d-by-wavelet": (
            lambda d=d: HaarDownsampling(2, spatial_dims=d, rebalance=2.0, order_by_wavelet=True),
            (2, 2, *size),
        ),
    }
SLOW = {name for name in LAYERS if name.endswith(("-1d", "-3d", "-fixed", "-1d-by-wavelet", "-3d-by-wavelet"))}
