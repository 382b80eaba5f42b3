"""CPU time and saved bytes of a training step of the iUNet: our policies beside cetmann/iunets.

    python -m benchmarks.engine [--size 32] [--couplings 4] [--steps 7] [--json FILE]

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
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from src.invertible import set_backprop
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet

CHANNELS = (16, 32, 64, 128)
POLICIES = ("stored", "reversible", "checkpoint", "memcnn")


def ours(policy: str, couplings: int) -> nn.Module:
    """The network of the comparison: 4 levels, instance norm and trailing activation as in iunets' default block."""
    subnet = functools.partial(ConvBlock, spatial_dims=3, norm="instance", final_activation=True)
    net = IUNet(CHANNELS, couplings, 3, subnet=subnet)
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


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes of distinct storages saved for backward, parameters apart."""
    own = {p.untyped_storage().data_ptr() for p in [*net.parameters(), *net.buffers()]}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = net(x.clone().requires_grad_() * 1.0)
    del y
    return sum(sizes.values())


def timed(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def measure(size: int, batch: int, couplings: int, steps: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    nets = {policy: ours(policy, couplings) for policy in POLICIES}
    if importlib.util.find_spec("iunets"):
        nets["iunets"] = theirs(couplings)
    x = torch.randn(batch, CHANNELS[0], size, size, size)
    for net in nets.values():
        training_step(net, x)
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(steps):
        for name, net in nets.items():
            times[name].append(timed(functools.partial(training_step, net, x)))
    rows = {}
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(times["reversible"], seconds, strict=True)]
        rows[name] = {
            "cpu_seconds": statistics.median(seconds),
            "reversible_over_this": statistics.median(ratios),
        }
        if name in POLICIES and name != "memcnn":  # memcnn saves past the hooks, in its own context
            rows[name]["saved_over_input"] = saved_bytes(nets[name], x) / (x.numel() * x.element_size())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="voxels per side")
    parser.add_argument("--batch", type=int, default=1, help="volumes per batch")
    parser.add_argument("--couplings", type=int, default=4, help="couplings per level and side")
    parser.add_argument("--steps", type=int, default=7, help="rounds")
    parser.add_argument("--json", help="also write the rows to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    rows = measure(arguments.size, arguments.batch, arguments.couplings, arguments.steps)
    print(f"torch {torch.__version__}, {platform.machine()}, {arguments.size}³, {arguments.couplings} couplings")
    for name, row in rows.items():
        print(f"{name:>12}  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "machine": platform.machine(), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
