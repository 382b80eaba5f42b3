"""What the machine is, and how fast it copies memory and multiplies matrices: the ceilings of all that follows."""

from pathlib import Path

import torch

from benchmarks.gpu.recording import Recorder
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]


def run(recorder: Recorder) -> None:
    """Record the machine and its ceilings."""
    found = provenance(ROOT)
    if recorder.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found |= {"gib": card.total_memory / 2**30, "multiprocessors": card.multi_processor_count}
    recorder.write("machine", **found, cudnn=torch.backends.cudnn.version())
    with recorder.measurement("copy") as numbers:
        x = torch.randn(2**20 if recorder.quick else 2**28, device=recorder.device)
        y = torch.empty_like(x)
        numbers["tb_per_s"] = 2 * x.numel() * x.element_size() / recorder.milliseconds(lambda: y.copy_(x)) / 1e9
    side = 256 if recorder.quick else 8192
    for dtype in (torch.float32, torch.bfloat16):
        with recorder.measurement("product", dtype=str(dtype).removeprefix("torch.")) as numbers:
            a = torch.randn(side, side, device=recorder.device, dtype=dtype)
            numbers["tflops"] = 2 * side**3 / recorder.milliseconds(lambda a=a: a @ a) / 1e9  # type: ignore[misc]
