"""Fourier convolutions, activations, pooling, ActNorm and linear channel maps, for the table of layers."""

from __future__ import annotations

from collections.abc import Callable

from src.invertible.composites import Sequential
from src.invertible.layers.activations import InvertibleLeakyReLU, SneakyReLU
from src.invertible.layers.actnorm import ActNorm
from src.invertible.layers.fourier import FourierConvolution
from src.invertible.layers.linear import InvertibleConv1x1, Permutation
from src.invertible.layers.pooling import Checkerboard, IAvgPool, INearestPool
from src.invertible.module import Inverse, InvertibleModule

# Odd and even sizes; the small ones are smaller than a kernel of 5.
SIZES = {1: [(7,), (8,), (3,)], 2: [(5, 6), (6, 5), (4, 3)], 3: [(3, 4, 4), (4, 2, 3)]}
EVEN_SIZES = {1: (8,), 2: (4, 6), 3: (4, 2, 4)}

Case = tuple[Callable[[], InvertibleModule], tuple[int, ...]]
LAYERS: dict[str, Case] = {
    "sneaky-relu-vector": (lambda: SneakyReLU(0.3), (3, 5)),
    "sneaky-relu-identity": (lambda: SneakyReLU(1.0), (3, 5)),
    "leaky-relu-vector": (lambda: InvertibleLeakyReLU(0.2), (3, 5)),
    "actnorm-vector": (lambda: ActNorm(5), (4, 5)),
    "permutation-vector": (lambda: Permutation(5, seed=3), (3, 5)),
    "permutation-given": (lambda: Permutation(4, (2, 0, 3, 1)), (3, 4)),
    "conv1x1-given": (lambda: InvertibleConv1x1(2, init=[[1.0, 2.0], [0.0, -1.0]]), (3, 2)),
    "fourier-2d-fft": (lambda: FourierConvolution(2, (7, 5), spatial_dims=2), (2, 2, 7, 6)),
    "fourier-2d-mixed-kernel": (lambda: FourierConvolution(2, (1, 4), spatial_dims=2), (2, 2, 3, 6)),
    "fourier-2d-one-channel": (lambda: FourierConvolution(1, 3, spatial_dims=2), (2, 1, 4, 5)),
    "iconvnet-2d": (
        lambda: Sequential(
            ActNorm(1),
            FourierConvolution(1, 3, spatial_dims=2),
            SneakyReLU(),
            IAvgPool(spatial_dims=2),
            FourierConvolution(4, 2, spatial_dims=2),
            SneakyReLU(0.5),
            Permutation(4),
        ),
        (2, 1, 4, 6),
    ),
}
for parametrisation in ("lu", "full"):
    for init in ("orthogonal", "identity"):
        LAYERS[f"conv1x1-vector-{parametrisation}-{init}"] = (
            lambda parametrisation=parametrisation, init=init: InvertibleConv1x1(4, parametrisation, init),
            (3, 4),
        )
for d, sizes in SIZES.items():
    for kernel_size in (1, 2, 3, 4, 5) if d < 3 else (2, 3):
        for size in sizes:
            LAYERS[f"fourier-{d}d-kernel-{kernel_size}-{'x'.join(map(str, size))}"] = (
                lambda d=d, kernel_size=kernel_size: FourierConvolution(2, kernel_size, spatial_dims=d),
                (2, 2, *size),
            )
    size, stride = EVEN_SIZES[d], (2, 1, 2)[:d]
    LAYERS |= {
        f"fourier-{d}d-no-bias-identity": (
            lambda d=d: FourierConvolution(3, 2, spatial_dims=d, bias=False, init="identity"),
            (2, 3, *size),
        ),
        f"sneaky-relu-{d}d": (lambda: SneakyReLU(), (2, 2, *size)),
        f"leaky-relu-{d}d": (lambda: InvertibleLeakyReLU(), (2, 2, *size)),
        f"actnorm-{d}d": (lambda: ActNorm(3), (2, 3, *size)),
        f"actnorm-{d}d-inverse": (lambda: Inverse(ActNorm(3)), (2, 3, *size)),
        f"actnorm-{d}d-untouched": (lambda: ActNorm(3).eval(), (2, 3, *size)),
        f"conv1x1-{d}d-lu": (lambda: InvertibleConv1x1(3), (2, 3, *size)),
        f"conv1x1-{d}d-full": (lambda: InvertibleConv1x1(3, "full"), (2, 3, *size)),
        f"permutation-{d}d": (lambda: Permutation(5), (2, 5, *size)),
    }
    for pooling in (Checkerboard, IAvgPool, INearestPool):
        name = f"{pooling.__name__.lower()}-{d}d"
        LAYERS |= {
            name: (lambda d=d, pooling=pooling: pooling(spatial_dims=d), (2, 2, *size)),
            f"{name}-stride": (
                lambda d=d, stride=stride, pooling=pooling: pooling(stride, spatial_dims=d),
                (2, 2, *size),
            ),
        }
