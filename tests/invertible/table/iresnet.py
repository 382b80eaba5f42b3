"""The i-ResNet's flow, for the table of layers."""

from __future__ import annotations

from src.models.iresnet import IResNetFlow
from tests.invertible.table.samples import Case

LAYERS: dict[str, Case] = {
    "iresnet-flow-2d": (lambda: IResNetFlow(1, 2, 1, 3, logdet="exact", eval_logdet="exact"), (2, 1, 4, 4)),
    "iresnet-flow-1d-lipswish-inverted-by-iteration": (
        lambda: IResNetFlow(
            2, 1, 2, 3, activation="lipswish", logdet="exact", eval_logdet="exact", keep_inputs=False, spatial_dims=1
        ),
        (2, 2, 4),
    ),
}
