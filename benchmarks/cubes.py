"""Speed of bfloat16 steps on a GPU, compared with memcnn and iunets, and the largest cube that can be trained.

    python -m benchmarks.cubes [--device cuda] [--size 128] [--channels 16] [--levels 8] [--output STEM]

The speed is measured as in `benchmarks.engine`, with iunets' coupling functions under autocast to bfloat16. The largest
cube for which a step of Adam fits is searched for the reversible iUNet, the same network under plain autograd, and the
classic U-Net, each from one channel to one. On a GPU, a size fits if a step runs. With ``--device cpu``, nothing is
computed: the bytes of live tensors, without the scratch memory of kernels, are compared with ``--limit-gib``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.engine import ROOT, Case, measure
from benchmarks.fake_values import FakeTensorMode, fake_values, make_fake
from benchmarks.live_bytes import LiveBytes
from benchmarks.peers import Definition, ours
from src.models.lifted import Lifted
from src.models.unet import UNet
from src.runs.provenance import provenance
from src.utils.files import write_text

GIB = 2**30
# Adam's two moments.
MOMENTS = 2
TIMED_LEVELS = 4
SPEED = ("stored", "reversible", "memcnn", "iunets")


def lifted(policy: str, definition: Definition) -> nn.Module:
    """The iUNet with linear convolutions from and to one channel at its ends."""
    return Lifted(1, 1, ours(policy, definition))


CUBES: dict[str, Callable[[Definition], nn.Module]] = {
    "iUNet, reversible": lambda definition: lifted("reversible", definition),
    "iUNet, stored": lambda definition: lifted("stored", definition),
    "classic U-Net": lambda d: UNet(1, 1, d.channels, d.levels, d.spatial_dims),
}


def largest(size_fits: Callable[[int], bool], step: int, limit: int) -> int:
    """Find the largest multiple of ``step`` up to ``limit`` that fits, by doubling and bisection; 0 if none does.

    If a size fits, every smaller size must fit, too.
    """
    good, bad = 0, limit // step + 1
    while bad - good > 1:
        # Doubling keeps the first failure small, because a size that does not fit also takes time.
        trial = min(max(2 * good, 1), (good + bad) // 2)
        good, bad = (trial, bad) if size_fits(trial * step) else (good, trial)
    return good * step


class Counted:
    """Counts the bytes of a step of Adam with fake tensors, without computing it.

    Fake tensors replace the network's parameters.
    """

    def __init__(self, net: nn.Module, bf16: bool) -> None:
        self._net, self._bf16 = net, bf16
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._weights = sum(p.numel() * p.element_size() for p in net.parameters())
        make_fake(net, self._mode)

    def __call__(self, shape: Sequence[int]) -> int:
        """The peak of live bytes, including the image, the weights, their gradients and Adam's moments."""
        self._net.zero_grad(set_to_none=True)
        with fake_values(self._mode), LiveBytes() as live:
            training_step(self._net, torch.zeros(*shape), self._bf16)
        return live.peak + (1 + MOMENTS) * self._weights


def runs(net: nn.Module, shape: Sequence[int], device: str, bf16: bool) -> bool:
    """Whether a step of Adam runs within the memory of a GPU that already holds the network."""
    optimizer = torch.optim.Adam(net.parameters())
    try:
        training_step(net, torch.zeros(*shape, device=device), bf16)
        optimizer.step()
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        del optimizer
        net.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    return True


def training_step(net: nn.Module, x: torch.Tensor, bf16: bool) -> None:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        loss = net(x).float().square().mean()
    loss.backward()


def fits(net: nn.Module, device: str, bf16: bool, limit_gib: float) -> Callable[[Sequence[int]], bool]:
    """Return a function that tells whether a step on an image of shape (B, C, *spatial) fits."""
    if device == "cpu":
        count = Counted(net, bf16)
        return lambda shape: count(shape) <= limit_gib * GIB
    net.to(device)
    return lambda shape: runs(net, shape, device, bf16)


def largest_cube(name: str, definition: Definition, device: str, bf16: bool, limit: int, limit_gib: float) -> int:
    """The largest side, up to ``limit``, of a cube that the network can be trained on."""
    step_fits = fits(CUBES[name](definition), device, bf16, limit_gib)

    def cube_fits(side: int) -> bool:
        answer = step_fits((1, 1, *[side] * definition.spatial_dims))
        print(f"{name}: {side} {'fits' if answer else 'does not fit'}", file=sys.stderr)
        return answer

    return largest(cube_fits, 2 ** (definition.levels - 1), limit)


def as_text(result: dict[str, Any]) -> str:
    """Return the result as two tables."""
    memory = (
        f"{result['limit_gib']:g} GiB, counted" if result["device"] == "cpu" else ", ".join(result["hardware"]["gpus"])
    )
    lines = [f"| largest cube ({memory}) | side |", "|---|---|"]
    lines += [f"| {name} | {side} |" for name, side in result["largest_cubes"].items()]
    if result["speed"]:
        lines += ["", "| step in bfloat16 | s | over reversible |", "|---|---|---|"]
        for name, row in result["speed"]["rows"].items():
            lines.append(f"| {name} | {row['seconds']:.3f} | {1 / row['reversible_over_this']:.2f} |")
        lines += [f"{name}: not measured, {reason}" for name, reason in result["speed"]["missing"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--channels", type=int, default=16, help="channels of the first level")
    parser.add_argument("--levels", type=int, default=8, help="levels of the networks for the largest cube")
    parser.add_argument("--couplings", type=int, default=4, help="couplings per level and side")
    parser.add_argument("--size", type=int, default=128, help="voxels per side of the timed step")
    parser.add_argument("--limit", type=int, default=1024, help="largest side to try")
    parser.add_argument("--limit-gib", type=float, default=80.0, help="memory limit for the counted bytes")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the timed step; 0 skips it")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16")
    parser.add_argument("--output", type=Path, help="stem of the output files")
    arguments = parser.parse_args()
    definition = Definition(3, arguments.channels, arguments.levels, arguments.couplings)
    bf16 = not arguments.fp32
    speed = None
    if arguments.rounds:
        timed = Definition(3, arguments.channels, TIMED_LEVELS, arguments.couplings, "iunets")
        case = Case(timed, arguments.size, device=arguments.device, bf16=bf16)
        speed = measure(case, SPEED, arguments.rounds)
    result = {
        "device": arguments.device,
        "definition": vars(arguments) | {"output": None},
        "limit_gib": arguments.limit_gib,
        "largest_cubes": {
            name: largest_cube(name, definition, arguments.device, bf16, arguments.limit, arguments.limit_gib)
            for name in CUBES
        },
        "speed": speed,
        **provenance(ROOT),
    }
    print(as_text(result))
    if arguments.output:
        write_text(arguments.output.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
        write_text(arguments.output.with_suffix(".txt"), as_text(result))


if __name__ == "__main__":
    main()
