"""The engine's policies beside their alternatives, as `benchmarks.engine` compares them."""

import statistics
from typing import Any

from torch import Tensor, nn

from benchmarks.engine import Case, build, bytes_of_a_step, training_step
from benchmarks.gpu.recording import Recorder
from benchmarks.peers import Definition

ALL = ("stored", "reversible", "checkpoint", "memcnn", "iunets", "revtorch", "unet")
FEW = ("stored", "reversible")
# Block of the couplings, voxels per side, bfloat16, networks, rounds.
CASES = (
    ("layer", 64, True, ALL, 7),
    ("layer", 128, True, ALL, 7),
    ("layer", 256, True, FEW, 3),
    ("iunets", 64, True, ALL, 7),
    ("layer", 64, False, ALL, 7),
    ("layer", 128, False, ALL, 7),
    ("iunets", 128, True, ALL, 7),
    ("layer", 256, False, FEW, 3),
)
QUICK = (("layer", 8, False, FEW, 1),)


def run(recorder: Recorder) -> None:
    """Record time and memory of each network in each case."""
    for block, size, bf16, names, rounds in QUICK if recorder.quick else CASES:
        if recorder.late:
            return
        about = {"block": block, "size": size, "bf16": bf16}
        with recorder.measurement("case", **about) as numbers:
            case = Case(Definition(3, 16, 2 if recorder.quick else 4, 4, block), size, 1, recorder.device, bf16)
            nets, numbers["missing"] = build(names, case)
            _compare(recorder, nets, case.input(), bf16, rounds, about)


def _compare(
    recorder: Recorder, nets: dict[str, nn.Module], x: Tensor, bf16: bool, rounds: int, about: dict[str, Any]
) -> None:
    running: dict[str, nn.Module] = {}
    for name, net in nets.items():
        with recorder.measurement("first step", **about, network=name) as numbers:
            numbers["seconds"] = recorder.seconds(lambda net=net: training_step(net, x, bf16))  # type: ignore[misc]
            running[name] = net
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds):
        for name in list(running)[:: -1 if number % 2 else 1]:
            times[name].append(recorder.seconds(lambda net=running[name]: training_step(net, x, bf16)))  # type: ignore[misc]
        if recorder.late:
            break
    for name, net in running.items():
        with recorder.measurement("engine", **about, network=name) as numbers:
            kept, peak = bytes_of_a_step(net, x, bf16)
            net.zero_grad(set_to_none=True)
            numbers |= {"ms": 1e3 * statistics.median(times[name]), "rounds": len(times[name])}
            if "stored" in times:
                pairs = zip(times[name], times["stored"], strict=False)
                numbers["over_stored"] = statistics.median(own / stored for own, stored in pairs)
            numbers |= {"kept_inputs": kept / (x.numel() * x.element_size()), "peak_gib": peak / 2**30}
