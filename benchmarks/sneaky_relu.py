"""SneakyReLU (Figure 3 of the i-ConvNet poster) and the accuracy of its inverse in single precision.

    python -m benchmarks.sneaky_relu [FOLDER] [--quick]

Writes ``sneaky_relu.txt``, ``sneaky_relu.json`` and ``sneaky_relu.png`` to the folder, if one is given. *Textbook*
evaluates the poster's equation and its closed-form inverse as they are printed; *ours* is the layer. The error is that
of x after forward and inverse, relative to x, the largest over x from −10⁴ to 10⁴; the reference is double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.results_folder import folder_and_quick, write_results
from src.invertible import SneakyReLU
from src.runs.provenance import provenance
from src.utils.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
SLOPES = (0.5, 0.1, 0.01)
LARGEST = 1e4

RoundTrip = Callable[[Tensor, float], Tensor]


def textbook(x: Tensor, slope: float) -> Tensor:
    """Return x after the equation and its inverse, as they are printed."""
    alpha = (1 - slope) / (1 + slope)
    y = (x + alpha * ((1 + x**2).sqrt() - 1)) / (1 + alpha)
    u = (1 + alpha) * y + alpha
    return (u - alpha * (u**2 + 1 - alpha**2).sqrt()) / (1 - alpha**2)


def ours(x: Tensor, slope: float) -> Tensor:
    """Return x after the layer and its inverse."""
    layer = SneakyReLU(slope)
    return layer.inverse(layer(x))


def largest_error(round_trip: RoundTrip, slope: float, points: int) -> float:
    """Return the largest ``|x' − x| / |x|`` over points at equal distances on a logarithmic scale, both signs."""
    positive = torch.logspace(-3, 4, points)
    assert positive.max() <= LARGEST * 1.001
    x = torch.cat([-positive.flip(0), positive])
    return float(((round_trip(x, slope) - x) / x).abs().max())


def measure(points: int) -> dict[str, Any]:
    """Return the errors by slope and candidate."""
    candidates: dict[str, RoundTrip] = {"textbook": textbook, "ours": ours}
    errors = {str(s): {name: largest_error(trip, s, points) for name, trip in candidates.items()} for s in SLOPES}
    return {"errors": errors}


def as_text(result: dict[str, Any]) -> str:
    """Return the errors as a table."""
    lines = [f"torch {result['versions']['torch']}, {result['git_commit']}", "Largest relative error of x, float32"]
    lines += [f"{'slope':>6} {'textbook':>10} {'ours':>10}"]
    lines += [f"{s:>6} {found['textbook']:10.1e} {found['ours']:10.1e}" for s, found in result["errors"].items()]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot the activation beside ReLU, and its slope."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (curves, slopes) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    x = torch.linspace(-5, 5, 401)
    curves.plot(x, x.relu(), color="black", linestyle="--", label="ReLU")
    for slope in SLOPES:
        layer = SneakyReLU(slope)
        curves.plot(x, layer(x).detach(), label=f"SneakyReLU, s = {slope:g}")
        slopes.plot(x, layer.log_derivative(x).exp().detach())
    for panel, title in ((curves, "σ(x)"), (slopes, "σ'(x)")):
        panel.set_title(title)
        panel.set_xlabel("x")
        panel.grid(alpha=0.3)
    curves.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    folder, quick = folder_and_quick(__doc__, argv)
    result = {**provenance(ROOT), **measure(101 if quick else 100_001)}
    write_results(folder, "sneaky_relu", result, as_text(result), plot)


if __name__ == "__main__":
    main()
