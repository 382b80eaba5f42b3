"""Memory of a training step of the BraTS networks at the paper's crop, under every policy.

``python -m benchmarks.segmentation_memory`` counts the bytes of all tensors without computing them: torch's fake
tensors only have shapes, so a step of any size runs on any machine in seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from rich.progress import track
from torch import Tensor, nn

from benchmarks.fake_values import DEVICE, bytes_of_a_fake_step
from benchmarks.results_folder import write_json
from src.config.composition import compose_config
from src.invertible import POLICIES, set_backprop
from src.runs.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
PAPER_CROP = (160, 192, 128)
GIB = 2**30
# Weights, their gradients and Adam's two moments.
COPIES_OF_WEIGHTS = 4
ROWS = {
    "U-Net": ("unet", "baseline", ("stored",)),
    "iUNet-16": ("iunet", "narrow", tuple(POLICIES)),
    "iUNet-32": ("iunet", "medium", tuple(POLICIES)),
    "iUNet-64": ("iunet", "wide", tuple(POLICIES)),
    "partially reversible U-Net": ("partially_reversible_unet", "baseline", tuple(POLICIES)),
}


def network(model: str, width: str, *overrides: str) -> nn.Module:
    """The network of a row at the paper's scale."""
    config = compose_config(["experiment=brats", "scale=paper", f"model={model}", f"network.width={width}", *overrides])
    return instantiate(config.model)


def count(net: nn.Module, policy: str, crop: Sequence[int], channels: int = 4, bf16: bool = False) -> tuple[int, int]:
    """Bytes that forward keeps for backward, and the peak of live bytes in a step, without the weights.

    The peak includes the gradients of the weights, but not the image or the scratch memory of kernels. Fake tensors
    replace the network's parameters and buffers.
    """
    set_backprop(net, policy)

    def loss(image: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            return net(image).float().square().mean()

    return bytes_of_a_fake_step(net, (1, channels, *crop), loss)


def row(net: nn.Module, policy: str, crop: Sequence[int] = PAPER_CROP, bf16: bool = False) -> dict[str, Any]:
    """The numbers of one network under one policy."""
    num_parameters = sum(p.numel() for p in net.parameters())
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    kept, peak = count(net, policy, crop, bf16=bf16)
    return {
        "policy": policy,
        "num_parameters": num_parameters,
        "kept_gib": kept / GIB,
        # The peak already includes the gradients.
        "step_gib": (peak + (COPIES_OF_WEIGHTS - 1) * weights) / GIB,
    }


def largest_blowup(sizes: dict[int, float], limit_gib: float) -> int:
    """The largest even channel blowup whose step fits, from a parabola through three blowups.

    Activations grow linearly with the channels, weights quadratically.

    Args:
        sizes: GiB of a step for three blowups.
        limit_gib: memory of the card.
    """
    (a, fa), (b, fb), (c, fc) = sorted(sizes.items())
    slope, bend = (fb - fa) / (b - a), ((fc - fb) / (c - b) - (fb - fa) / (b - a)) / (c - a)

    def step_gib(blowup: int) -> float:
        return fa + slope * (blowup - a) + bend * (blowup - a) * (blowup - b)

    blowup = 0
    while step_gib(blowup + 2) <= limit_gib:
        blowup += 2
    return blowup


def measure(names: Sequence[str], limit_gib: float, bf16: bool = False) -> dict[str, Any]:
    """Measure all rows, and find the largest iUNet for a card of ``limit_gib``."""
    rows: dict[str, list[dict[str, Any]]] = {}
    steps = [(name, policy) for name in names for policy in ROWS[name][2]]
    for name, policy in track(steps, description="Counting bytes"):
        torch.manual_seed(0)
        rows.setdefault(name, []).append(row(network(*ROWS[name][:2]), policy, bf16=bf16))
    iunets = {int(name.rpartition("-")[2]): found for name, found in rows.items() if name.startswith("iUNet-")}
    largest = {}
    if len(iunets) == 3:
        for position, policy in enumerate(POLICIES):
            sizes = {blowup: found[position]["step_gib"] for blowup, found in iunets.items()}
            largest[policy] = largest_blowup(sizes, limit_gib)
    return {
        "crop": PAPER_CROP,
        "bf16": bf16,
        "rows": rows,
        "limit_gib": limit_gib,
        "largest_iunet_blowup": largest,
        **provenance(ROOT),
    }


def as_markdown(result: dict[str, Any]) -> str:
    """Return the result as two tables."""
    lines = [
        "| network | parameters | backprop | kept for backward (GiB) | whole step (GiB) |",
        "|---|---|---|---|---|",
    ]
    for name, found in result["rows"].items():
        for r in found:
            numbers = f"{r['kept_gib']:.2f} | {r['step_gib']:.2f}"
            lines.append(f"| {name} | {r['num_parameters'] / 1e6:.1f} M | {r['policy']} | {numbers} |")
    if result["largest_iunet_blowup"]:
        lines += ["", f"| backprop | largest iUNet in {result['limit_gib']:g} GiB |", "|---|---|"]
        lines += [f"| {policy} | iUNet-{blowup} |" for policy, blowup in result["largest_iunet_blowup"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--limit-gib", type=float, default=24.0, help="memory of the card for the largest iUNet")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16, by CUDA's rules")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    result = measure(arguments.rows, arguments.limit_gib, arguments.bf16)
    write_json(arguments.output, result)
    print(as_markdown(result))


if __name__ == "__main__":
    main()
