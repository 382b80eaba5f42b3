"""Logit, multi-scale architecture, RealNVP and Glow: their lines of the table."""

from __future__ import annotations

from src.invertible import AdditiveCoupling, Inverse, Sequential
from src.invertible.layers.logit import FixedAffine, Logit
from src.models.glow import COUPLINGS, PERMUTATIONS, Glow
from src.models.multiscale import multiscale, squeezed_channels
from src.models.realnvp import RealNVP
from tests.invertible.table.samples import Case, subnet

GLOW: dict[str, dict] = {
    **{f"{name}-coupling": {"coupling": name} for name in COUPLINGS},
    **{f"{name}-mixing": {"permutation": name} for name in PERMUTATIONS},
    "full-matrices": {"lu": False},
}

LAYERS: dict[str, Case] = {
    "fixed-affine": (lambda: FixedAffine(-0.3, 2.0), (2, 3, 4)),
    # From the real line and back to it, since the table's inputs are normal numbers.
    "sigmoid-logit": (lambda: Sequential(Inverse(Logit()), FixedAffine(0.998, 0.001), Logit()), (2, 3, 4)),
}
LAYERS["realnvp-skips"] = (lambda: RealNVP(1, 2, 1, 4, 2, skip_connections=True, channel_factor=2), (2, 1, 4, 4))
for name, options in GLOW.items():
    LAYERS[f"glow-2d-{name}"] = (lambda options=options: Glow(1, 1, 2, 4, **options), (2, 1, 2, 4))
for d, num_levels, shape in ((1, 2, (2, 1, 8)), (2, 2, (2, 1, 4, 4)), (3, 1, (2, 1, 2, 2, 2))):
    LAYERS |= {
        f"multiscale-{d}d": (
            lambda d=d, n=num_levels: multiscale(
                [[AdditiveCoupling(c, subnet(d))] for c in squeezed_channels(1, n, d)], 1, spatial_dims=d
            ),
            shape,
        ),
        f"realnvp-{d}d": (lambda d=d, n=num_levels: RealNVP(1, n, 1, 4, 1, spatial_dims=d), shape),
        f"glow-{d}d": (lambda d=d, n=num_levels: Glow(1, n, 1, 4, spatial_dims=d), shape),
    }
