"""FrEIA's splines, which its release 0.2 does not have: what the commit of `COMMIT` computes, recorded in a file.

``PYTHONPATH=<checkout of FrEIA> python -m tests.invertible.freia_splines`` writes the file again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

COMMIT = "github.com/vislearn/FrEIA 4212496"
FILE = Path(__file__).with_suffix(".json")
KINDS = ("LinearSpline", "RationalQuadraticSpline", "ElementwiseRationalQuadraticSpline")
# FrEIA keeps sizes in float32, which has these numbers exactly.
OPTIONS: dict[str, dict[str, Any]] = {
    "domain": {"bins": 3, "min_bin_sizes": (0.125, 0.25), "default_domain": (-2.0, 4.0, -1.0, 3.0)},
    "clamp": {"bins": 2, "min_bin_sizes": (0.0, 0.0), "domain_clamping": 2.5},
    "identity-tails": {"bins": 3, "identity_tails": True},
    "identity-tails-clamp": {"bins": 3, "identity_tails": True, "domain_clamping": 2.0},
}
CHANNELS = 2
DIRECTIONS = {"forward": False, "inverse": True}


class Constant(nn.Module):
    """A subnet that returns the same coefficients for every sample."""

    def __init__(self, dims_in: int, dims_out: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(dims_out, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.coefficients.expand(len(x), -1)


def measured(evaluate: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, theta: Tensor) -> dict[str, list[Any]]:
    """Outputs, log-determinant, and the gradients of state and coefficients for a loss of both."""
    x = x.clone().requires_grad_()
    y, logdet = evaluate(x)
    gradients = torch.autograd.grad(((y + 0.3) ** 3).sum() + ((logdet + 0.3) ** 3).sum(), (x, theta))
    values = dict(zip(("y", "logdet", "grad_x", "grad_theta"), (y, logdet, *gradients), strict=True))
    return {name: value.detach().flatten().tolist() for name, value in values.items()}


def record(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """What FrEIA's spline makes of a few states and coefficients."""
    import FrEIA.modules as Fm

    torch.manual_seed(0)
    module = getattr(Fm, kind)([(CHANNELS,)], subnet_constructor=Constant, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = 3 * torch.randn(5, CHANNELS, dtype=torch.float64)
    parameters = tuple(module.parameters())
    theta = torch.cat([parameter.flatten() for parameter in parameters]).detach().requires_grad_()
    found = {"x": x.flatten().tolist(), "theta": theta.tolist()}
    for direction, rev in DIRECTIONS.items():

        def evaluate(x: Tensor, rev: bool = rev) -> tuple[Tensor, Tensor]:
            sizes = [parameter.numel() for parameter in parameters]
            names = [name for name, _ in module.named_parameters()]
            stand_ins = dict(zip(names, theta.split(sizes), strict=True))
            (y,), logdet = torch.func.functional_call(module, stand_ins, ([x],), {"rev": rev})
            return y, logdet

        found[direction] = measured(evaluate, x, theta)
    return found


def recorded() -> dict[str, dict[str, Any]]:
    """What is in the file, by kind and name of the options."""
    return json.loads(FILE.read_text())


def main() -> None:
    values = {f"{kind} {name}": record(kind, options) for kind in KINDS for name, options in OPTIONS.items()}
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
