"""Whether networks of the iUNet paper train on 512³ and other cubes, beside plain autograd and a U-Net."""

import torch

from benchmarks.cubes import CUBES, training_step
from benchmarks.gpu.recording import Recorder
from benchmarks.peers import Definition

# Network, voxels per side, bfloat16; the most telling ones first.
CASES = (
    ("iUNet, reversible", 512, True),
    ("classic U-Net", 256, True),
    ("iUNet, stored", 256, True),
    ("iUNet, reversible", 640, True),
    ("classic U-Net", 384, True),
    ("iUNet, stored", 384, True),
    ("iUNet, reversible", 512, False),
    ("iUNet, reversible", 384, True),
)
QUICK = (("iUNet, reversible", 8, True),)


def run(recorder: Recorder) -> None:
    """Record for each case whether a step of Adam fits, and its seconds and peak."""
    definition = Definition(3, 4, 2, 2) if recorder.quick else Definition(3, 16, 8, 4)
    for name, side, bf16 in QUICK if recorder.quick else CASES:
        if recorder.late:
            return
        with recorder.measurement("cube", network=name, side=side, bf16=bf16) as numbers:
            net = CUBES[name](definition).to(recorder.device)
            optimizer = torch.optim.Adam(net.parameters())
            for parameter in net.parameters():  # Adam's memory is there in every step but the first
                moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
            x = torch.randn(1, 1, side, side, side, device=recorder.device)

            def step(net=net, optimizer=optimizer, x=x, bf16=bf16) -> None:  # type: ignore[no-untyped-def]
                training_step(net, x, bf16)
                optimizer.step()

            numbers["seconds"] = recorder.seconds(step)
            numbers |= {"fits": True, "peak_gib": recorder.peak_gib()}
