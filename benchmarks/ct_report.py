"""Show the results of `benchmarks.ct` as text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.ct_stages import STAGES, Setting
from src.utils.files import atomic_write

LABELS = {"ours": "ours", "foam_ct_phantom": "foam_ct_phantom", "astra": "ASTRA", "skimage": "scikit-image"}
QUANTITIES = {"size": "voxels per side", "balls": "balls", "views": "views"}


def _setting(row: dict[str, Any]) -> Setting:
    return Setting(row["size"], row["balls"], row["views"])


def as_text(result: dict[str, Any]) -> str:
    """Return all numbers as tables for a terminal."""
    hardware, generation = result["hardware"], result["generation"]
    lines = [
        f"torch {result['versions']['torch']}, {hardware['cpu']}, one thread, commit {result['git_commit']}",
        "",
        "CPU milliseconds of a scan, by stage",
        f"{'':>28}" + "".join(f"{stage:>14}" for stage in (*STAGES, "sum")),
    ]
    for row in result["stages"]:
        numbers = "".join(f"{1e3 * row[stage]:14.1f}" for stage in (*STAGES, "sum"))
        lines.append(f"{_setting(row)!s:>28}{numbers}")
    lines += ["", "CPU milliseconds of all candidates, and in brackets their ratio to ours"]
    for row in result["beside_peers"]:
        for task, candidates in row["tasks"].items():
            numbers = "   ".join(
                f"{LABELS[name]} {1e3 * c['cpu_seconds']:.0f} ({c['over_ours']:.2f})" for name, c in candidates.items()
            )
            lines.append(f"{_setting(row)!s:>28}  {task:<13} {numbers}")
    lines += ["", "Placement"]
    for row in result["placement"]:
        lines.append(
            f"{LABELS[row['by']]:>28}  {row['trial_points']:>9,} trial points: {row['cpu_seconds']:.2f} s, "
            f"{row['covered']:.1%} of the cylinder covered"
        )
    lines += [
        "",
        f"{generation['volumes']} volumes in {generation['processes'] or 1} processes: {generation['seconds']:.0f} s, "
        f"{generation['cpu_seconds_per_volume']:.2f} CPU seconds each",
        "",
        "Milliseconds per batch of the loader, and per training step",
    ]
    for row in result["loaders"]:
        step = "on a GPU: not measured" if row["step_seconds"] is None else f"{1e3 * row['step_seconds']:.1f}"
        lines.append(
            f"{row['size']:>8}³ × {row['batch_size']}, {row['num_workers']} workers: "
            f"{1e3 * row['seconds_per_batch']:.2f}, step {step}"
        )
    differences = ", ".join(f"{name} {value:.1e}" for name, value in result["agreement"].items())
    return "\n".join([*lines, "", f"Relative differences from ours: {differences or 'no peers'}"]) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot CPU time by task over size, balls and views: one column of panels for each, one line per candidate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    base = result["beside_peers"][0]
    tasks = list(base["tasks"])
    figure, panels = pyplot.subplots(len(tasks), len(QUANTITIES), figsize=(10, 10), sharey="row", layout="constrained")
    for column, (quantity, label) in enumerate(QUANTITIES.items()):
        others = [q for q in QUANTITIES if q != quantity]
        rows = [row for row in result["beside_peers"] if all(row[q] == base[q] for q in others)]
        rows.sort(key=lambda row: row[quantity])
        values = [row[quantity] for row in rows]
        for task, panel in zip(tasks, panels[:, column], strict=True):
            for name in base["tasks"][task]:
                seconds = [row["tasks"][task][name]["cpu_seconds"] for row in rows]
                panel.loglog(values, seconds, marker="o", label=LABELS[name], color=f"C{list(LABELS).index(name)}")
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        panels[-1, column].set_xlabel(label)
    for task, panel in zip(tasks, panels[:, 0], strict=True):
        panel.set_ylabel(f"{task}: CPU s")
        panel.legend(fontsize="small")
    figure.suptitle(f"{_setting(base)}, one of them varied")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)
