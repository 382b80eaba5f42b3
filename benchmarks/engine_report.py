"""Show the result of `benchmarks.engine` as text, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.precision import labelled
from src.utils.files import write_text

MIB = 2**20
COLUMNS = ("s per step", "over stored", "reversible over this", "kept, in inputs", "peak, MiB", "gradient error")


def as_text(result: dict[str, Any]) -> str:
    """Return one Markdown table per point, with a line above it that describes the measurement."""
    case, hardware = result["case"], result["hardware"]
    definition = case["definition"]
    machine = hardware["cpu"] if case["device"] == "cpu" else ", ".join(hardware["gpus"])
    lines = [
        f"torch {result['versions']['torch']}, {machine}, {hardware['threads']} thread(s), {result['rounds']} rounds, "
        f"commit {(result['git_commit'] or 'unknown')[:7]}",
        f"{definition['spatial_dims']}D, {definition['levels']} levels, {definition['channels']} channels, "
        f"{definition['couplings']} couplings, size {case['size']}, batch {case['batch']}, block {definition['block']}"
        f"{', bfloat16' if case['bf16'] else ''}",
    ]
    for point in result["points"]:
        lines += ["", f"{result['axis']} {point['value']}", "", f"| | {' | '.join(COLUMNS)} |", "|---" * 7 + "|"]
        for name, row in point["rows"].items():
            cells = (
                f"{row['seconds']:.3f}",
                f"{row['over_stored']:.2f}",
                f"{row['reversible_over_this']:.2f}",
                f"{row['kept_bytes'] / point['input_bytes']:.2f}",
                f"{row['peak_bytes'] / MIB:.1f}",
                f"{row['gradient_error']:.0e}",
            )
            lines.append(f"| {labelled(name, row, case['bf16'])} | {' | '.join(cells)} |")
        lines += [f"{name}: not measured, {reason}" for name, reason in point["missing"].items()]
    return "\n".join(lines) + "\n"


def write_report(result: dict[str, Any], stem: Path) -> None:
    """Write ``<stem>.json``, ``<stem>.txt`` and ``<stem>.png``."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_text(stem.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    write_text(stem.with_suffix(".txt"), as_text(result))
    _draw(result, stem.with_suffix(".png"))


def _draw(result: dict[str, Any], path: Path) -> None:
    """Plot time and peak memory as curves over the axis, or as bars for a single point."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    points = result["points"]
    names = list(dict.fromkeys(name for point in points for name in point["rows"]))
    colours = {name: plt.get_cmap("tab10")(i) for i, name in enumerate(names)}
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    panels = (("time per step (s)", "seconds", 1), ("peak memory of a step (MiB)", "peak_bytes", MIB))
    for panel, (label, key, unit) in zip(axes, panels, strict=True):
        for name in names:
            found = [(p["value"], p["rows"][name][key] / unit) for p in points if name in p["rows"]]
            if len(points) > 1:
                panel.plot(*zip(*found, strict=True), marker="o", label=name, color=colours[name])
            else:
                panel.bar(name, found[0][1], color=colours[name])
        if len(points) > 1:
            panel.set(xscale="log", yscale="log", xlabel=result["axis"], xticks=[p["value"] for p in points])
            panel.set_xticklabels([str(p["value"]) for p in points])
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
        else:
            panel.tick_params(axis="x", rotation=45)
        panel.set_ylabel(label)
        panel.grid(axis="y", alpha=0.3)
    if len(points) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
