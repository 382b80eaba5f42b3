"""Additive couplings, orthogonal maps, composites and iUNets: their lines of the table."""

from __future__ import annotations

from src.invertible import AdditiveCoupling, Downsampling, Inverse, OnChannels, OrthogonalMixing, Sequential
from src.invertible.layers.orthogonal import random_orthogonal
from src.models.blocks import NORMS
from src.models.iunet import IUNet
from tests.invertible.table.samples import SPATIAL, Case, dense, subnet

LAYERS: dict[str, Case] = {
    "additive-vector": (lambda: AdditiveCoupling(5, dense), (3, 5)),
    "additive-vector-flip": (lambda: AdditiveCoupling(5, dense, flip=True), (3, 5)),
}
for d, size in SPATIAL.items():
    stride = (2, 1, 2)[:d]
    LAYERS |= {
        f"additive-{d}d": (lambda d=d: AdditiveCoupling(4, subnet(d)), (2, 4, *size)),
        f"additive-{d}d-odd": (lambda d=d: AdditiveCoupling(5, subnet(d)), (2, 5, *size)),
        f"additive-{d}d-split-flip": (lambda d=d: AdditiveCoupling(5, subnet(d), split=1, flip=True), (2, 5, *size)),
        f"downsampling-{d}d-given": (
            lambda d=d: Downsampling(2, spatial_dims=d, init=random_orthogonal(1, 2**d)[0]),
            (2, 2, *size),
        ),
        f"downsampling-{d}d-frozen": (lambda d=d: Downsampling(2, spatial_dims=d, learnable=False), (2, 2, *size)),
        f"downsampling-{d}d-householder-3": (
            lambda d=d: Downsampling(2, spatial_dims=d, method="householder", num_reflections=3),
            (2, 2, *size),
        ),
        f"on-channels-{d}d": (lambda d=d: OnChannels(AdditiveCoupling(2, subnet(d)), 3), (2, 5, *size)),
        f"sequential-{d}d": (
            lambda d=d: Sequential(
                AdditiveCoupling(2, subnet(d)), Downsampling(2, spatial_dims=d), OrthogonalMixing(2 * 2**d)
            ),
            (2, 2, *size),
        ),
        f"inverse-sequential-{d}d": (
            lambda d=d: Inverse(Sequential(AdditiveCoupling(3, subnet(d)), OrthogonalMixing(3, init="random"))),
            (2, 3, *size),
        ),
        f"iunet-{d}d": (
            lambda d=d: IUNet((4, 2**d * 2), 2, d, subnet=subnet(d), mixing={"init": "random"}),
            (1, 4, *size),
        ),
    }
    for method in ("exp", "cayley", "householder"):
        LAYERS[f"mixing-{d}d-{method}"] = (
            lambda method=method: OrthogonalMixing(4, method=method, init="random"),
            (2, 4, *size),
        )
        for init in ("haar", "pixel_shuffle", "random"):
            LAYERS[f"downsampling-{d}d-{method}-{init}"] = (
                lambda d=d, stride=stride, method=method, init=init: Downsampling(
                    2, stride, spatial_dims=d, method=method, init=init
                ),
                (2, 2, *size),
            )
for norm in NORMS:
    LAYERS[f"additive-2d-{norm}"] = (lambda norm=norm: AdditiveCoupling(4, subnet(2, norm)), (2, 4, 4, 4))
for frequency in (-1, 0, 1, 2):
    LAYERS[f"iunet-2d-mixing-{frequency}"] = (
        lambda frequency=frequency: IUNet(
            (3, 8, 8), (1, 2, 3), 2, subnet=subnet(2), strides=[2, (2, 1)], mixing_frequency=frequency
        ),
        (1, 3, 4, 4),
    )
