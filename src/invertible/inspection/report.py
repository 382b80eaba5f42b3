"""An `Inspection` as text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..extras import extra
from .costs import Block, Inspection
from .saved_bytes import ELSEWHERE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIB = 2**10
SMALLEST_ERROR = 1e-17


def as_text(found: Inspection) -> str:
    """A table with one row per block, then what belongs to no block, then the whole network."""
    policies = list(found.elsewhere_bytes)
    header = ["kind", "input", "parameters", *(f"{policy}\nKiB" for policy in policies)]
    header += ["forward\nms", "inverse\nms", "backward\nms", "reversible\nms", "own\nerror", "rebuilt\nerror", "block"]
    rows = [_row(block, policies) for block in found.blocks]
    elsewhere = [f"{found.elsewhere_bytes[policy] / KIB:.1f}" for policy in policies]
    rows.append(["", "", f"{found.elsewhere_parameters:,}", *elsewhere, *[""] * 6, ELSEWHERE])
    rows.append(_row(_total(found), policies))
    rows[-1][1] = f"{found.input_bytes / KIB:.1f} KiB"
    # Names come last, because those of nested blocks are long.
    top = [name.split("\n")[0] if "\n" in name else "" for name in header]
    bottom = [name.split("\n")[-1] for name in header]
    widths = [max(len(row[i]) for row in [top, bottom, *rows]) for i in range(len(header))]
    left = (0, 1, len(header) - 1)
    layout = "  ".join(f"{{:{'<' if column in left else '>'}{width}}}" for column, width in enumerate(widths))
    lines = [layout.format(*row).rstrip() for row in [top, bottom, *rows]]
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([*lines[:2], rule, *lines[2:-1], rule, lines[-1]])


def _row(block: Block, policies: Sequence[str]) -> list[str]:
    shapes = ", ".join("×".join(map(str, shape)) for shape in block.shapes)
    times = (block.forward_s, block.inverse_s, block.backward_s["stored"], block.backward_s["reversible"])
    return [
        block.kind,
        shapes,
        f"{block.num_parameters:,}",
        *(f"{block.saved_bytes[policy] / KIB:.1f}" for policy in policies),
        *(f"{1000 * seconds:.2f}" for seconds in times),
        f"{block.own_error:.1e}",
        f"{block.rebuilt_error:.1e}",
        block.name,
    ]


def _total(found: Inspection) -> Block:
    """The whole network as if it were one block: sums, and the worst errors."""
    errors = torch.tensor([[block.own_error, block.rebuilt_error] for block in found.blocks], dtype=torch.float64)
    own_error, rebuilt_error = errors.amax(0).tolist()  # NaN, if there is one
    return Block(
        name="total",
        kind="",
        shapes=[],
        num_parameters=found.num_parameters,
        forward_s=sum(block.forward_s for block in found.blocks),
        inverse_s=sum(block.inverse_s for block in found.blocks),
        backward_s={p: sum(block.backward_s[p] for block in found.blocks) for p in ("stored", "reversible")},
        own_error=own_error,
        rebuilt_error=rebuilt_error,
        saved_bytes={policy: found.total_bytes(policy) for policy in found.elsewhere_bytes},
    )


def plot_inspection(found: Inspection, path: str | Path | None = None) -> Figure:
    """Three panels over the blocks: saved bytes by policy, time by kind, reconstruction error; saved to ``path``."""
    names = [block.name for block in found.blocks]
    with extra("plots"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 1.6 + 0.28 * len(names)), layout="constrained")
    memory, seconds, error = figure.subplots(1, 3, sharey=True)
    policies = list(found.elsewhere_bytes)
    saved = {policy: [block.saved_bytes[policy] / KIB for block in found.blocks] for policy in policies}
    _bars(memory, names, {f"{p} (total {found.total_bytes(p) / KIB:.0f})": values for p, values in saved.items()})
    memory.set_xlabel("saved for backward (KiB)")
    times = {
        "forward": [1000 * block.forward_s for block in found.blocks],
        "inverse": [1000 * block.inverse_s for block in found.blocks],
        "backward, stored": [1000 * block.backward_s["stored"] for block in found.blocks],
        "backward, reversible": [1000 * block.backward_s["reversible"] for block in found.blocks],
    }
    _bars(seconds, names, times)
    seconds.set_xlabel("time (ms)")
    rows = range(len(names))
    # Exact blocks stand at the left edge of the logarithmic axis.
    error.plot([max(block.own_error, SMALLEST_ERROR) for block in found.blocks], rows, "o", label="own")
    rebuilt = [max(block.rebuilt_error, SMALLEST_ERROR) for block in found.blocks]
    error.plot(rebuilt, rows, ".-", label="rebuilt from the output")
    error.set_xscale("log")
    error.set_xlabel(f"relative error (≤ {SMALLEST_ERROR:.0e}: exact)")
    error.legend(fontsize=7)
    memory.set_yticks(rows, names, fontsize=7)
    memory.invert_yaxis()
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _bars(axes: Axes, names: Sequence[str], series: dict[str, list[float]]) -> None:
    height = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        positions = [row + (number - (len(series) - 1) / 2) * height for row in range(len(names))]
        axes.barh(positions, values, height=height, label=label)
    axes.legend(fontsize=7)
