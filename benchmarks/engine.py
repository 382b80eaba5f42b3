"""CPU time and saved bytes of a training step of the iUNet: our policies beside cetmann/iunets.

    python -m benchmarks.engine [--size 32] [--couplings 4] [--batch 1] [--block layer|iunets] [--rounds 9] [--json F]

The policies take turns within each round, so that drift of the machine's speed hits all alike; ratios are medians over
rounds. One thread, CPU time. ``iunets`` (github.com/cetmann/iunets, on the import path) is left out where absent.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import platform
import statistics
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.measure import median_ratio, times_in_turns
from src.invertible import POLICIES, set_backprop
from src.invertible.reconstruction import LeafNames
from src.invertible.saved_bytes import saved_by_block
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet

CHANNELS = (16, 32, 64, 128)


# The coupling functions: ours by default, and those of iunets, for the same network on both sides.
BLOCKS = {
    "layer": functools.partial(ConvBlock, spatial_dims=3, zero_init=True),
    "iunets": functools.partial(ConvBlock, spatial_dims=3, norm="instance", final_activation=True),
}


def ours(policy: str, couplings: int, block: str) -> nn.Module:
    """The network of the comparison: 4 levels."""
    net = IUNet(CHANNELS, couplings, 3, subnet=BLOCKS[block])
    set_backprop(net, policy)
    return net


def theirs(couplings: int) -> nn.Module:
    """The same network built with cetmann/iunets and its memcnn wrappers."""
    from iunets import iUNet

    # `exp`: their Cayley transform calls torch.lu, which current torch no longer has.
    return iUNet(
        CHANNELS,
        (couplings,) * len(CHANNELS),
        dim=3,
        resampling_method="exp",
        channel_mixing_method="exp",
        padding_mode=None,
    )


def training_step(net: nn.Module, x: Tensor) -> None:
    """One forward and backward pass behind a linear layer, as in use: memcnn frees its input's memory."""
    net.zero_grad(set_to_none=True)
    y = net(x.clone().requires_grad_() * 1.0)
    (y * y).sum().backward()


def measure(
    size: int, batch: int, couplings: int, block: str, rounds: int, policies: Sequence[str]
) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    nets = {policy: ours(policy, couplings, block) for policy in policies}
    if block == "iunets" and importlib.util.find_spec("iunets"):
        nets["iunets"] = theirs(couplings)
    x = torch.randn(batch, CHANNELS[0], size, size, size)
    times = times_in_turns({name: functools.partial(training_step, net, x) for name, net in nets.items()}, rounds)
    rows = {}
    for name, seconds in times.items():
        rows[name] = {
            "cpu_seconds": statistics.median(seconds),
            "over_stored": median_ratio(seconds, times["stored"]),
            "reversible_over_this": median_ratio(times["reversible"], seconds),
        }
        kept = sum(saved_by_block(nets[name], (x,), LeafNames(nets[name])).values())
        # Less the input itself, which its owner keeps; the output counts.
        rows[name]["kept_over_input"] = kept / (x.numel() * x.element_size()) - 1
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="voxels per side")
    parser.add_argument("--batch", type=int, default=1, help="volumes per batch")
    parser.add_argument("--couplings", type=int, default=4, help="couplings per level and side")
    parser.add_argument("--block", choices=list(BLOCKS), default="layer", help="coupling functions")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    if not {"stored", "reversible"} <= set(arguments.policies):
        parser.error("expected --policies to hold stored and reversible, which the ratios are taken with")
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    rows = measure(
        arguments.size, arguments.batch, arguments.couplings, arguments.block, arguments.rounds, arguments.policies
    )
    print(f"torch {torch.__version__}, {platform.machine()}, {arguments.size}³, {arguments.couplings} couplings")
    for name, row in rows.items():
        print(f"{name:>12}  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "machine": platform.machine(), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
