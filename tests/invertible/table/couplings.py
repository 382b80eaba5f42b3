"""Couplings and all-in-one blocks, for the table of layers."""

from __future__ import annotations

import torch

from src.invertible import Inverse, OnChannels, Sequential
from src.invertible.layers.affine import CLAMPS, AffineCoupling, GlowCoupling
from src.invertible.layers.all_in_one import SCALES, AllInOneBlock, GlobalAffine
from src.invertible.layers.coupling import AdditiveCoupling, TwoSidedCoupling
from tests.invertible.table.samples import SPATIAL, Case, dense, subnet

COUPLINGS = {"additive": AdditiveCoupling, "affine": AffineCoupling, "glow": GlowCoupling}
# Every option of the block by itself, and those that act on the same part of it together.
ALL_IN_ONE: dict[str, dict] = {
    "hard": {},
    "soft": {"permute_soft": True},
    "householder": {"learned_householder_permutation": 3},
    "soft-householder": {"permute_soft": True, "learned_householder_permutation": 2},
    "reverse-hard": {"reverse_permutation": True},
    "reverse-soft": {"permute_soft": True, "reverse_permutation": True},
    "reverse-householder": {"learned_householder_permutation": 2, "reverse_permutation": True},
    "gin": {"gin_block": True},
    "gin-reverse-soft": {"gin_block": True, "permute_soft": True, "reverse_permutation": True},
    "clamp": {"affine_clamping": 0.7, "clamp_activation": "atan"},
    **{f"scale-{name}": {"global_affine_type": name, "global_affine_init": 0.6} for name in SCALES},
}

LAYERS: dict[str, Case] = {
    "two-sided-additive-vector": (lambda: TwoSidedCoupling(AdditiveCoupling, 5, dense), (3, 5)),
    "additive-vector-fraction": (lambda: AdditiveCoupling(5, dense, split=0.75), (3, 5)),
    "global-affine-vector": (lambda: GlobalAffine(5), (3, 5)),
    "global-affine-no-scale": (lambda: GlobalAffine(3, None), (2, 3, 4)),
    "affine-two-channels": (lambda: AffineCoupling(2, dense), (3, 2)),
    "affine-volume-preserving-vector": (lambda: AffineCoupling(5, dense, volume_preserving=True), (3, 5)),
    "affine-clamp-function": (lambda: AffineCoupling(4, dense, clamp_activation=torch.erf, clamp=0.5), (3, 4)),
    "affine-subnet-scale": (lambda: AffineCoupling(4, dense, subnet_scale=0.1), (3, 4)),
}
for activation in CLAMPS:
    LAYERS[f"affine-clamp-{activation}"] = (
        lambda activation=activation: AffineCoupling(4, dense, clamp=0.8, clamp_activation=activation),
        (3, 4),
    )
for name, options in ALL_IN_ONE.items():
    LAYERS[f"all-in-one-vector-{name}"] = (lambda options=options: AllInOneBlock(5, dense, **options), (3, 5))
for name in ("hard", "reverse-householder", "gin"):
    LAYERS[f"all-in-one-2d-{name}"] = (
        lambda name=name: AllInOneBlock(5, subnet(2), **ALL_IN_ONE[name]),
        (2, 5, 3, 2),
    )
for name, coupling in COUPLINGS.items():
    if name != "additive":
        LAYERS |= {
            f"{name}-vector": (lambda coupling=coupling: coupling(5, dense), (3, 5)),
            f"{name}-vector-flip": (lambda coupling=coupling: coupling(5, dense, flip=True), (3, 5)),
            f"two-sided-{name}-vector": (lambda coupling=coupling: TwoSidedCoupling(coupling, 5, dense), (3, 5)),
        }
        LAYERS |= {
            f"{name}-{d}d-{label}": (
                lambda d=d, coupling=coupling, options=options: coupling(5, subnet(d), **options),
                (2, 5, *size),
            )
            for d, size in SPATIAL.items()
            for label, options in {
                "odd": {},
                "split-flip-volume-preserving": {"split": 1, "flip": True, "volume_preserving": True},
            }.items()
        }
    LAYERS |= {
        f"two-sided-{name}-{d}d": (
            lambda d=d, coupling=coupling: TwoSidedCoupling(coupling, 4, subnet(d), split=0.25),
            (2, 4, *size),
        )
        for d, size in SPATIAL.items()
    }
for d, size in SPATIAL.items():
    LAYERS |= {
        f"all-in-one-{d}d": (
            lambda d=d: AllInOneBlock(4, subnet(d), permute_soft=True, reverse_permutation=True),
            (2, 4, *size),
        ),
        f"global-affine-{d}d": (lambda: GlobalAffine(3, "exp", 2.0), (2, 3, *size)),
        f"affine-chain-{d}d": (
            lambda d=d: Sequential(
                AffineCoupling(4, subnet(d)),
                OnChannels(GlowCoupling(3, subnet(d), flip=True), 1),
                Inverse(AllInOneBlock(4, subnet(d), learned_householder_permutation=2)),
            ),
            (2, 4, *size),
        ),
    }
for norm in ("batch", "instance"):
    LAYERS[f"glow-2d-{norm}"] = (lambda norm=norm: GlowCoupling(4, subnet(2, norm)), (2, 4, 4, 4))
