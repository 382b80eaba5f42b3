"""A chain of FrEIA's GLOW blocks, run by FrEIA and by our engine: saved bytes over depth, CPU time of a training step.

    pip install FrEIA && python -m benchmarks.freia [--rounds 7] [--output FILE]

Both run the same FrEIA modules. Times are CPU time of one thread and medians over rounds; the candidates take turns.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import median_ratio, times_in_turns
from benchmarks.results_folder import write_json
from src.invertible import POLICIES, FreiaModule, GlowCoupling, Sequential, TwoSidedCoupling, set_backprop
from src.invertible.inspection import LeafNames, saved_by_block
from src.models.blocks import ConvBlock

DEPTHS = (4, 8, 16)
SHAPE = (8, 12, 32, 32)  # (B, C, H, W)


def subnet(dims_in: int, dims_out: int) -> nn.Module:
    block = ConvBlock(dims_in, dims_out, spatial_dims=2, norm="none")
    nn.init.zeros_(block.conv1.weight)  # type: ignore[union-attr, arg-type]
    return block


def chain(depth: int) -> nn.Module:
    """FrEIA's SequenceINN of GLOW blocks."""
    from FrEIA.framework import SequenceINN
    from FrEIA.modules import GLOWCouplingBlock

    torch.manual_seed(0)
    net = SequenceINN(*SHAPE[1:])
    for _ in range(depth):
        net.append(GLOWCouplingBlock, subnet_constructor=subnet, clamp=2.0)
    return net


def in_our_engine(net: nn.Module, policy: str) -> Sequential:
    """The same modules as blocks of our engine."""
    ours = Sequential(*(FreiaModule(block) for block in net.module_list))  # type: ignore[union-attr]
    set_backprop(ours, policy)
    return ours


def native(depth: int) -> Sequential:
    """Our GLOW blocks of the same size."""
    torch.manual_seed(0)
    blocks = (TwoSidedCoupling(GlowCoupling, SHAPE[1], subnet) for _ in range(depth))
    net = Sequential(*blocks)
    set_backprop(net, "reversible")
    return net


def negative_log_likelihood(net: nn.Module, x: Tensor) -> Tensor:
    z, logdet = net.forward_and_logdet(x) if isinstance(net, Sequential) else net(x, jac=True)
    return (0.5 * z.square().flatten(1).sum(1) - logdet).mean()


class Likelihood(nn.Module):
    """The forward pass of a step as a module, which counting the saved bytes requires."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return negative_log_likelihood(self.net, x)


def training_step(net: nn.Module, x: Tensor) -> None:
    net.zero_grad(set_to_none=True)
    negative_log_likelihood(net, x).backward()


def measure(depth: int, rounds: int) -> dict[str, dict[str, float]]:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    nets: dict[str, nn.Module] = {"FrEIA": chain(depth)}
    nets |= {policy: in_our_engine(chain(depth), policy) for policy in POLICIES}
    nets["GlowCoupling"] = native(depth)
    times = times_in_turns({name: functools.partial(training_step, net, x) for name, net in nets.items()}, rounds)
    rows = {}
    for name, net in nets.items():
        kept = sum(saved_by_block(Likelihood(net), (x,), LeafNames(net)).values())
        rows[name] = {
            "cpu_ms": 1e3 * statistics.median(times[name]),
            "time_over_freia": median_ratio(times[name], times["FrEIA"]),
            "kept_mib": kept / 2**20,
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for depth in DEPTHS:
        results[depth] = measure(depth, arguments.rounds)
        print(f"{depth} GLOW blocks, state {SHAPE}")
        for name, row in results[depth].items():
            print(f"{name:>12}  " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    write_json(arguments.output, {"torch": torch.__version__, "shape": SHAPE, "depths": results})


if __name__ == "__main__":
    main()
