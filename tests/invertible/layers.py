"""Every invertible layer with its options: one table that drives the oracle tests.

A new layer is one line per option in its family's file.
"""

from __future__ import annotations

import torch

from src.invertible import InvertibleModule
from tests.invertible import (
    layers_core,
    layers_couplings,
    layers_flows,
    layers_fourier,
    layers_graph,
    layers_iresnet,
    layers_networks,
    layers_residual,
)
from tests.invertible.samples import Case

FAMILIES = (
    layers_core,
    layers_couplings,
    layers_flows,
    layers_fourier,
    layers_graph,
    layers_iresnet,
    layers_networks,
    layers_residual,
)
LAYERS: dict[str, Case] = {name: case for family in FAMILIES for name, case in family.LAYERS.items()}
# Each line counts: two families must not use the same name.
assert len(LAYERS) == sum(len(family.LAYERS) for family in FAMILIES)


def build(name: str) -> tuple[InvertibleModule, torch.Tensor]:
    """The layer in float64 with perturbed parameters, away from special starts, and an input."""
    construct, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = construct().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer, torch.randn(shape, dtype=torch.float64)
