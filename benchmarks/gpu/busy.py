"""The share of a training step that the GPU computes, its launches and its synchronisations."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.recording import Recorder
from benchmarks.peers import Definition, ours
from src.models.lifted import Lifted

WARM_UP, TIMED, PROFILED = 3, 5, 2
CALLS = ("cudaLaunchKernel", "cudaMemcpyAsync")


def run(recorder: Recorder) -> None:
    """Record steps at the sizes of ct_postproc's medium scale and of its double."""
    for size, levels in ((16, 2),) if recorder.quick else ((64, 7), (128, 8)):
        if recorder.late:
            return
        with recorder.measurement("busy", size=size, levels=levels) as numbers:
            numbers |= _of_a_step(recorder, size, levels)


def _of_a_step(recorder: Recorder, size: int, levels: int) -> dict[str, Any]:
    net: nn.Module = Lifted(1, 1, ours("reversible", Definition(3, 16, levels, 4))).to(recorder.device)
    optimizer = torch.optim.AdamW(net.parameters())
    x, y = torch.randn(2, 1, 1, size, size, size, device=recorder.device)

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.autocast(recorder.device, torch.bfloat16):
                loss = F.mse_loss(net(x).float(), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    steps(WARM_UP)
    wall = recorder.seconds(lambda: steps(TIMED)) / TIMED
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if recorder.device == "cuda" else [])]
    with profile(activities=kinds) as found:
        steps(PROFILED)
        recorder.synchronise()
    events = found.key_averages()
    kernels = [e for e in events if e.self_device_time_total > 0 and not e.key.startswith("aten::")]
    slowest = sorted(kernels, key=lambda event: -event.self_device_time_total)[:12]
    return {
        "step_ms": 1e3 * wall,
        "device_busy": sum(e.self_device_time_total for e in kernels) / 1e6 / PROFILED / wall,
        "launches": sum(event.count for event in kernels) // PROFILED,
        "calls": {e.key: e.count // PROFILED for e in events if e.key in CALLS or "ynchronize" in e.key},
        "slowest_ms": {e.key[:90]: e.self_device_time_total / 1e3 / PROFILED for e in slowest},
    }
