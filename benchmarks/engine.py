"""Time, memory and accuracy of a training step of the iUNet: our policies and alternative libraries.

    python -m benchmarks.engine [--spatial-dims 3] [--size 32] [--couplings 4] [--block layer|iunets] [--bf16]
                                [--vary couplings 2 4 8] [--networks NAME ...] [--device cuda] [--output STEM]

Networks take turns within each round, so that changes of the machine's speed affect all equally. Ratios are medians
over rounds. On a CPU, times are CPU time, and bytes are those of live tensors, without the scratch memory of kernels.
(torch's slow 3D convolution, which iunets uses for single small volumes, needs 27 inputs of scratch memory.) On a GPU,
times are wall time, and bytes are those of CUDA's allocator. Networks that cannot be built are listed with the reason.
``--output`` writes STEM.json, STEM.txt and STEM.png.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import gc
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine_report import as_text, write_report
from benchmarks.live_bytes import LiveBytes
from benchmarks.measure import device_clock, median_ratio, times_in_turns
from benchmarks.peers import BLOCKS, NETWORKS, Definition, NotComparable, awake
from benchmarks.precision import convolution_dtypes
from src.invertible import set_backprop
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
AXES = ("couplings", "channels", "levels", "size", "batch")


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement: the definition of a network, its input, and how a step is computed."""

    definition: Definition = dataclasses.field(default_factory=Definition)
    size: int = 32
    batch: int = 1
    device: str = "cpu"
    bf16: bool = False

    def input(self) -> Tensor:
        """A random image with the network's number of channels."""
        shape = (self.batch, self.definition.channels, *[self.size] * self.definition.spatial_dims)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def at(self, axis: str, value: int) -> Case:
        """Return the case with one number changed."""
        if axis in ("size", "batch"):
            return dataclasses.replace(self, **{axis: value})
        return dataclasses.replace(self, definition=dataclasses.replace(self.definition, **{axis: value}))


def forward(net: nn.Module, x: Tensor, bf16: bool) -> Tensor:
    """The loss for a computed input, as in practice: memcnn frees its input and does not accept a leaf of the graph."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        return net(x.requires_grad_() * 1.0).float().square().sum()


def training_step(net: nn.Module, x: Tensor, bf16: bool) -> None:
    """Run one forward and backward pass."""
    net.zero_grad(set_to_none=True)
    x.grad = None
    forward(net, x, bf16).backward()


def bytes_of_a_step(net: nn.Module, x: Tensor, bf16: bool) -> tuple[int, int]:
    """Bytes that forward keeps for backward, and the peak of live bytes in a step, without input and parameters."""
    net.zero_grad(set_to_none=True)
    x.grad = None
    gc.collect()
    if x.device.type == "cuda":
        before = torch.cuda.memory_allocated(x.device)
        torch.cuda.reset_peak_memory_stats(x.device)
        loss = forward(net, x, bf16)
        kept = torch.cuda.memory_allocated(x.device) - before
        loss.backward()
        return kept, torch.cuda.max_memory_allocated(x.device) - before
    with LiveBytes() as live:
        loss = forward(net, x, bf16)
        kept = live.now
        loss.backward()
    return kept, live.peak


def gradient_error(net: nn.Module, x: Tensor, bf16: bool) -> float:
    """Relative l2 error of all parameters' gradients against the same network in double precision.

    Our network then uses plain autograd.
    """
    training_step(net, x, bf16)
    found = [p.grad.double() for p in net.parameters() if p.grad is not None]
    net.zero_grad(set_to_none=True)
    oracle = copy.deepcopy(net).double()
    set_backprop(oracle, "stored")
    training_step(oracle, x.detach().double(), bf16=False)
    expected = [p.grad for p in oracle.parameters() if p.grad is not None]
    pairs = list(zip(found, expected, strict=True))
    return float((sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)) ** 0.5)


def build(names: Sequence[str], case: Case) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The networks that can be built, and the reasons why the others cannot."""
    nets, missing = {}, {}
    for name in names:
        torch.manual_seed(0)
        try:
            nets[name] = awake(NETWORKS[name](case.definition)).to(case.device)
        except NotComparable as reason:
            missing[name] = str(reason)
    return nets, missing


def measure(case: Case, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """The rows of a case by network; ``missing`` says which networks could not be built, and why."""
    nets, missing = build(names, case)
    x = case.input()
    steps = {name: functools.partial(training_step, net, x, case.bf16) for name, net in nets.items()}
    times = times_in_turns(steps, rounds, device_clock(case.device))
    rows = {}
    for name, net in nets.items():
        kept, peak = bytes_of_a_step(net, x, case.bf16)
        rows[name] = {
            "seconds": statistics.median(times[name]),
            "over_stored": median_ratio(times[name], times["stored"]),
            "reversible_over_this": median_ratio(times["reversible"], times[name]),
            "kept_bytes": kept,
            "peak_bytes": peak,
            "parameter_bytes": sum(p.numel() * p.element_size() for p in net.parameters()),
            "gradient_error": gradient_error(net, x, case.bf16),
            "convolution_dtypes": convolution_dtypes(net, steps[name]),
        }
        net.zero_grad(set_to_none=True)
    return {"input_bytes": x.numel() * x.element_size(), "rows": rows, "missing": missing}


def run(
    case: Case, names: Sequence[str], rounds: int, axis: str = "size", values: Sequence[int] = ()
) -> dict[str, Any]:
    """Measure a case, for each value of an axis if given, and record the hardware and versions."""
    points = []
    for value in values or (getattr(case, axis, None) or getattr(case.definition, axis),):
        print(f"{axis} {value}: {', '.join(names)}", file=sys.stderr)
        points.append({"value": value, **measure(case.at(axis, value), names, rounds)})
    return {
        "case": dataclasses.asdict(case),
        "axis": axis,
        "points": points,
        "rounds": rounds,
        **provenance(ROOT),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spatial-dims", type=int, choices=(1, 2, 3), default=3)
    parser.add_argument("--size", type=int, default=32, help="voxels per side")
    parser.add_argument("--batch", type=int, default=1, help="images per batch")
    parser.add_argument("--channels", type=int, default=16, help="of the first level")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--couplings", type=int, default=4, help="per level and side")
    parser.add_argument("--block", choices=list(BLOCKS), default="layer", help="coupling functions")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--vary", nargs="+", metavar=("AXIS", "VALUE"), help=f"one of {', '.join(AXES)}, and its values"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--output", type=Path, help="stem of the files to write")
    arguments = parser.parse_args()
    if not {"stored", "reversible"} <= set(arguments.networks):
        parser.error("expected --networks to include stored and reversible, which the ratios need")
    axis, *values = arguments.vary or ["size"]
    if axis not in AXES or (arguments.vary and not values) or not all(value.isdigit() for value in values):
        parser.error(f"expected --vary to be one of {', '.join(AXES)} and whole numbers, got {arguments.vary}")
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(arguments.threads)
    definition = Definition(
        arguments.spatial_dims, arguments.channels, arguments.levels, arguments.couplings, arguments.block
    )
    case = Case(definition, arguments.size, arguments.batch, arguments.device, arguments.bf16)
    result = run(case, arguments.networks, arguments.rounds, axis, [int(value) for value in values])
    print(as_text(result))
    if arguments.output:
        write_report(result, arguments.output)


if __name__ == "__main__":
    main()
