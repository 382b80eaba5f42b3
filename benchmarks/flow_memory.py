"""Memory of a training step of Glow on one image: ours under every policy, beside normflows and FrEIA's own blocks.

    python -m benchmarks.flow_memory [--limits 24 40 80] [--output FILE]

Glow as in its paper: 3 levels of 32 steps with 512 hidden channels, batch 1. The bytes of all tensors are counted, not
computed: torch's fake tensors only have shapes. A step's bytes grow linearly with the pixels, so two sizes tell all
others. normflows (``pip install normflows``) and FrEIA are left out, and named, where they cannot be imported. The
scratch memory of kernels does not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fake_values import bytes_of_a_fake_step
from benchmarks.results_folder import write_json
from src.invertible import POLICIES, set_backprop
from src.models.glow import Glow
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
CHANNELS = 3
BYTES_OF_A_PIXEL = 4 * CHANNELS
GIB = 2**30
# The gradients are part of the counted peak; the weights and Adam's two moments are not.
OTHER_COPIES = 3
SIDES = (64, 128)
NOT_BUILT = "not importable"


@dataclass(frozen=True)
class Definition:
    """The sizes of a Glow."""

    levels: int = 3
    steps: int = 32
    hidden: int = 512


Loss = Callable[[Tensor], Tensor]


def ours(definition: Definition, policy: str) -> tuple[nn.Module, Loss]:
    """Our Glow under a policy, and its negative log-likelihood without constants."""
    net = Glow(CHANNELS, definition.levels, definition.steps, definition.hidden).eval()  # no batch sets the norms
    set_backprop(net, policy)  # type: ignore[arg-type]

    def loss(x: Tensor) -> Tensor:
        z, logdet = net.forward_and_logdet(x)
        return 0.5 * z.square().sum() - logdet.sum()

    return net, loss


def normflows(definition: Definition) -> tuple[nn.Module, Loss]:
    """The Glow of normflows' own example, which keeps every activation."""
    import normflows as nf

    side = 2 ** (definition.levels + 3)
    priors, flows, merges = [], [], []
    for i in range(definition.levels):
        channels = CHANNELS * 2 ** (definition.levels + 1 - i)
        blocks = [
            nf.flows.GlowBlock(channels, definition.hidden, split_mode="channel", scale=True)
            for _ in range(definition.steps)
        ]
        flows.append([*blocks, nf.flows.Squeeze()])
        if i:
            merges.append(nf.flows.Merge())
        latent = (channels // (1 if i == 0 else 2), side >> (definition.levels - i), side >> (definition.levels - i))
        priors.append(_Anywhere(latent))
    net = nf.MultiscaleFlow(priors, flows, merges, class_cond=False)
    for module in net.modules():
        if module._buffers.pop("data_dep_init_done", None) is not None:
            module.data_dep_init_done = 1.0  # a fake tensor has no value to compare
    return net, lambda x: -net.log_prob(x, None).sum()


class _Anywhere(nn.Module):
    """A standard normal latent of any size; normflows' own has one size."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().flatten(start_dim=1).sum(dim=1)


def freia(definition: Definition) -> tuple[nn.Module, Loss]:
    """FrEIA's GLOW blocks, permutations and normalisations in its own graph, with a split between the levels."""
    from FrEIA import framework as ff
    from FrEIA import modules as fm

    def subnet(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, definition.hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(definition.hidden, definition.hidden, 1),
            nn.ReLU(),
            nn.Conv2d(definition.hidden, outputs, 3, padding=1),
        )

    side = 2 ** (definition.levels + 3)
    nodes: list[Any] = [ff.InputNode(CHANNELS, side, side)]
    ends: list[Any] = []
    last: Any = nodes[0]
    for level in range(definition.levels):
        nodes.append(ff.Node(last, fm.IRevNetDownsampling, {}))
        for _ in range(definition.steps):
            nodes.append(ff.Node(nodes[-1], fm.ActNorm, {}))
            nodes.append(ff.Node(nodes[-1], fm.Fixed1x1Conv, {"M": torch.eye(nodes[-1].output_dims[0][0])}))
            nodes.append(ff.Node(nodes[-1], fm.GLOWCouplingBlock, {"subnet_constructor": subnet}))
        last = nodes[-1]
        if level < definition.levels - 1:
            nodes.append(ff.Node(last, fm.Split, {"dim": 0}))
            ends.append(ff.OutputNode(nodes[-1].out1))
            last = nodes[-1].out0
    ends.append(ff.OutputNode(last))
    net = ff.GraphINN([*nodes, *ends], verbose=False)
    for module in net.modules():
        if isinstance(module, fm.ActNorm):
            module.init_on_next_batch = False

    def loss(x: Tensor) -> Tensor:
        latents, logdet = net(x)
        return sum((0.5 * z.square().sum() for z in latents), -logdet.sum())

    return net, loss


def networks(definition: Definition) -> dict[str, Callable[[], tuple[nn.Module, Loss]]]:
    """What builds each network and its loss."""
    own = {f"ours, {policy}": lambda policy=policy: ours(definition, policy) for policy in POLICIES}
    return {**own, "normflows": lambda: normflows(definition), "FrEIA": lambda: freia(definition)}  # type: ignore[dict-item]


def step_bytes(net: nn.Module, loss: Loss, side: int) -> tuple[int, int]:
    """Return the bytes that forward keeps, and those of a whole step of Adam, for one square image.

    The network's tensors become fake ones.
    """
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    kept, peak = bytes_of_a_fake_step(net, (1, CHANNELS, side, side), loss)
    return kept, peak + OTHER_COPIES * weights + BYTES_OF_A_PIXEL * side**2


def row(build: Callable[[], tuple[nn.Module, Loss]], limits: Sequence[float], sides: Sequence[int]) -> dict[str, Any]:
    """Return the bytes per pixel and the largest square, in steps of 8 pixels, for each limit in GiB."""
    measured = [step_bytes(*build(), side) for side in sides]
    pixels = [side**2 for side in sides]
    slope = (measured[1][1] - measured[0][1]) / (pixels[1] - pixels[0])
    constant = measured[0][1] - slope * pixels[0]
    largest = {f"{limit:g}": int(max(limit * GIB - constant, 0) / slope) for limit in limits}
    return {
        "kept_bytes_per_pixel": (measured[1][0] - measured[0][0]) / (pixels[1] - pixels[0]),
        "step_bytes_per_pixel": slope,
        "constant_gib": constant / GIB,
        "largest_side": {limit: int(count**0.5) // 8 * 8 for limit, count in largest.items()},
    }


def measure(
    definition: Definition, limits: Sequence[float] = (24.0, 40.0, 80.0), sides: Sequence[int] = SIDES
) -> dict[str, Any]:
    """Measure all networks that can be imported."""
    rows: dict[str, Any] = {}
    for name, build in networks(definition).items():
        try:
            rows[name] = row(build, limits, sides)
        except ModuleNotFoundError as error:
            rows[name] = f"{NOT_BUILT}: {error.name}"
    return {"definition": vars(definition), "limits_gib": list(limits), "rows": rows, **provenance(ROOT)}


def as_markdown(result: dict[str, Any]) -> str:
    """Return the result as a table."""
    limits = [f"{limit:g}" for limit in result["limits_gib"]]
    heads = ["network", "kept, KiB per pixel", "step, KiB per pixel", *(f"largest square in {n} GiB" for n in limits)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in result["rows"].items():
        if isinstance(found, str):
            lines.append(f"| {name} | {found}" + " |" * (len(heads) - 1))
            continue
        numbers = [f"{found[key] / 1024:.2f}" for key in ("kept_bytes_per_pixel", "step_bytes_per_pixel")]
        sides = [f"{found['largest_side'][limit]}²" for limit in limits]
        lines.append(f"| {' | '.join([name, *numbers, *sides])} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=float, nargs="+", default=[24.0, 40.0, 80.0], help="GiB")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args(argv)
    result = measure(Definition(), arguments.limits)
    write_json(arguments.output, result)
    print(as_markdown(result))


if __name__ == "__main__":
    main()
