"""A spline flow beside an affine one on points of two rings: two modes, each with a hole.

``python -m examples.spline_flow`` trains both under ``reversible``, prints the log-likelihood of held-out points and
the bytes that a step keeps at two depths, and writes a picture of the densities. A minute on a free CPU core.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from src.invertible import (
    ActNorm,
    ElementwiseCoupling,
    GlowCoupling,
    InvertibleModule,
    OrthogonalMixing,
    RationalQuadraticSpline,
    Sequential,
    set_backprop,
)
from src.invertible.inspection import saved_bytes
from src.models import standard_normal_log_density

CENTRES = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
RADIUS, WIDTH = 1.0, 0.1


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 2) of both rings, with normal distances from their circles."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    radius = RADIUS + WIDTH * torch.randn(count, generator=generator)
    ring = torch.randint(2, (count,), generator=generator)
    return CENTRES[ring] + radius[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)


def true_log_density(x: Tensor) -> Tensor:
    """The log-density (B,) from which `draw` draws, in nats."""
    distance = (x[:, None] - CENTRES).norm(dim=2)  # (B, 2)
    radial = torch.distributions.Normal(RADIUS, WIDTH).log_prob(distance)
    return torch.logsumexp(radial - (2 * math.pi * distance).log(), dim=1) - math.log(2)


def subnet(dims_in: int, dims_out: int) -> nn.Module:
    hidden = 64
    last = nn.Linear(hidden, dims_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(dims_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)


def spline(channels: int, flip: bool) -> InvertibleModule:
    return ElementwiseCoupling(channels, subnet, RationalQuadraticSpline(16, identity_tails=True), flip=flip)


def affine(channels: int, flip: bool) -> InvertibleModule:
    return GlowCoupling(channels, subnet, flip=flip)


COUPLINGS: dict[str, Callable[[int, bool], InvertibleModule]] = {"affine": affine, "spline": spline}


def flow(name: str, depth: int) -> Sequential:
    """``depth`` couplings that change the two coordinates in turn, with a rotation before each."""
    parts: list[InvertibleModule] = [ActNorm(2)]
    for index in range(depth):
        parts += [OrthogonalMixing(2, init="random"), COUPLINGS[name](2, index % 2 == 1)]
    net = Sequential(*parts)
    set_backprop(net, "reversible")
    return net


def log_density(net: InvertibleModule, x: Tensor) -> Tensor:
    """``log p(x)`` (B,) under the flow, in nats."""
    z, logdet = net.forward_and_logdet(x)
    return standard_normal_log_density(z) + logdet


def train(net: InvertibleModule, steps: int, generator: torch.Generator) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = -log_density(net, draw(512, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def show(axes: Axes, log_densities: Callable[[Tensor], Tensor], title: str) -> None:
    """The density on the square [−4, 4]²."""
    grid = torch.linspace(-4, 4, 200)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    points = torch.stack((x, y), dim=-1).reshape(-1, 2)
    density = log_densities(points).exp().reshape(x.shape)
    axes.imshow(density.numpy(), extent=(-4, 4, -4, 4), origin="lower", vmin=0, vmax=0.35)
    axes.set(title=title, xticks=[], yticks=[])


def compare(steps: int, depth: int, seed: int, picture: Path) -> dict[str, dict[str, float]]:
    """Held-out log-likelihood in nats, and bytes kept by a step at the depth and at four times that, for each flow."""
    held_out = draw(20_000, torch.Generator().manual_seed(seed + 1))
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 3)
    show(axes[0], true_log_density, "truth")
    results = {"truth": {"log-likelihood": true_log_density(held_out).mean().item()}}
    for name, place in zip(COUPLINGS, axes[1:], strict=True):
        torch.manual_seed(seed)
        net = flow(name, depth)
        train(net, steps, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            likelihood = log_density(net.eval(), held_out).mean().item()
        show(place, functools.partial(log_density, net), f"{name} couplings: {likelihood:.3f} nats")
        kept = (kept_bytes(name, number) for number in (depth, 4 * depth))
        results[name] = dict(zip(("log-likelihood", "bytes", "bytes at 4 × depth"), (likelihood, *kept), strict=True))
    figure.savefig(picture, dpi=100)
    return results


def kept_bytes(name: str, depth: int) -> int:
    """Bytes that autograd keeps, parameters apart, between the passes of the flow for a batch of 512 points."""
    net = flow(name, depth)
    return saved_bytes.kept_bytes(net, lambda: net.forward_and_logdet(torch.randn(512, 2, requires_grad=True) * 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--depth", type=int, default=6, help="number of couplings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("spline_flow.png"))
    arguments = parser.parse_args()
    for name, numbers in compare(**vars(arguments)).items():
        print(f"{name:7s}", "  ".join(f"{key} {value:.4g}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
