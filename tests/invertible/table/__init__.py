"""Every invertible layer with its options: one table that drives the oracle tests.

A new layer is one line per option in the file of its family here; each file with `LAYERS` is found by itself. Lines
that a family also names in `SLOW`, and 3D twins of 2D lines, run with ``-m slow`` alone.
"""

from __future__ import annotations

import importlib
import pkgutil

import torch

from src.invertible import InvertibleModule
from tests.invertible.table.samples import Case
from tests.marks import slow

FAMILIES = [
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
    if module.name != "samples"
]
LAYERS: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.LAYERS.items()}
# Each line counts: two families must not use the same name.
assert len(LAYERS) == sum(len(family.LAYERS) for family in FAMILIES)
SLOW = {name for family in FAMILIES for name in getattr(family, "SLOW", ())}
# In three dimensions the fast tests have what is there in three dimensions alone.
SLOW |= {name for name in LAYERS if "3d" in name and name.replace("3d", "2d") in LAYERS}
NAMES = [slow(name) if name in SLOW else name for name in LAYERS]


def build(name: str) -> tuple[InvertibleModule, torch.Tensor]:
    """The layer in float64 with perturbed parameters, away from special starts, and an input."""
    construct, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = construct().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer, torch.randn(shape, dtype=torch.float64)
