"""Couplings and layers of elementwise maps: their lines of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from src.invertible import Inverse, Sequential, TwoSidedCoupling
from src.invertible.layers.affine import Affine, AffineCoupling, Scaling
from src.invertible.layers.coupling import SubnetConstructor
from src.invertible.layers.elementwise import ElementwiseCoupling, LearnedElementwise, MapFamily
from src.invertible.layers.splines import LinearSpline, RationalQuadraticSpline
from tests.invertible.table.samples import SPATIAL, Case, dense, subnet

SPLINES: dict[str, dict[str, Any]] = {
    "default": {},
    "one-bin": {"num_bins": 1},
    "sizes-domain": {"num_bins": 4, "min_bin_sizes": (0.2, 0.3), "domain": (-1.0, 2.0, -2.0, 1.5)},
    "identity-tails": {"identity_tails": True, "num_bins": 5},
    "identity-tails-any-bin": {"identity_tails": True, "num_bins": 5, "min_bin_fraction": 0.0},
    "clamp": {"domain_clamp": 2.5, "num_bins": 3},
    "identity-tails-clamp": {"identity_tails": True, "domain_clamp": 2.0, "num_bins": 3},
}
FAMILIES: dict[str, Callable[[], MapFamily]] = {
    "affine": lambda: Affine(0.7, "tanh"),
    "scaling": lambda: Scaling(1.5),
    "linear-spline": LinearSpline,
    "rational-spline": RationalQuadraticSpline,
}


class Tenth(nn.Module):
    """A tenth of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * x


def gentle(spatial_dims: int) -> SubnetConstructor:
    """Subnets of small outputs: coefficients of splines beyond 10 give derivatives near zero."""
    return lambda dims_in, dims_out: nn.Sequential(subnet(spatial_dims)(dims_in, dims_out), Tenth())


def spline_coupling(channels: int, subnet: SubnetConstructor, **options: Any) -> ElementwiseCoupling:
    return ElementwiseCoupling(channels, subnet, RationalQuadraticSpline(4), **options)


LAYERS: dict[str, Case] = {
    "elementwise-scaling-per-channel": (lambda: LearnedElementwise((3, 1, 1), Scaling(0.5)), (2, 3, 2, 4)),
    "elementwise-spline-per-channel": (lambda: LearnedElementwise((3, 1), RationalQuadraticSpline(4)), (2, 3, 5)),
    "elementwise-rational-spline-min-derivative": (
        lambda: LearnedElementwise((3,), RationalQuadraticSpline(5, min_derivative=0.3)),
        (3, 3),
    ),
    "spline-two-sided": (lambda: TwoSidedCoupling(spline_coupling, 5, dense), (3, 5)),
}
for name, options in SPLINES.items():
    LAYERS |= {
        f"elementwise-linear-spline-{name}": (lambda o=options: LearnedElementwise((3,), LinearSpline(**o)), (3, 3)),
        f"elementwise-rational-spline-{name}": (
            lambda o=options: LearnedElementwise((3,), RationalQuadraticSpline(**o)),
            (3, 3),
        ),
    }
for name, family in FAMILIES.items():
    LAYERS[f"coupling-{name}"] = (lambda family=family: ElementwiseCoupling(4, dense, family()), (3, 4))
for d, size in SPATIAL.items():
    LAYERS |= {
        f"elementwise-scaling-{d}d": (lambda size=size: LearnedElementwise((2, *size), Scaling()), (2, 2, *size)),
        f"spline-chain-{d}d": (
            lambda d=d, size=size: Sequential(
                LearnedElementwise((3, *size), RationalQuadraticSpline(3)),
                spline_coupling(3, gentle(d), split=2),
                Inverse(spline_coupling(3, gentle(d), flip=True)),
            ),
            (1, 3, *size),
        ),
        f"affine-{d}d-volume-preserving-voxel": (
            lambda d=d: AffineCoupling(5, subnet(d), volume_preserving="voxel"),
            (2, 5, *size),
        ),
    }
# The fast suite has each family in a coupling, one spline of its own, and a chain.
SLOW = {name for name in LAYERS if name.startswith("elementwise-") and name != "elementwise-rational-spline-default"}
SLOW |= {"spline-chain-2d", "spline-chain-3d", "affine-2d-volume-preserving-voxel", "affine-3d-volume-preserving-voxel"}
