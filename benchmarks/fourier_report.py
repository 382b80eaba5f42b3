"""Show the results of `benchmarks.fourier` as text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.utils.files import atomic_write

NAMES = ("plain", "ours", "periodic", "naive")


def as_text(result: dict[str, Any]) -> str:
    """Return all CPU milliseconds as tables, in brackets the ratio to plain, or to ours if plain has none."""
    about = f"torch {result['versions']['torch']}, {result['hardware']['cpu']}, one thread, {result['git_commit']}"
    lines = [about, f"Ours and periodic differ by at most {result['agreement']:.1e} of the largest value"]
    for quantity, rows in result["over"].items():
        lines += ["", f"CPU milliseconds over {quantity}"]
        for row in rows:
            lines.append(f"{row['channels']} channels, {row['size']}×{row['size']}, batch {row['batch']}")
            for operation, found in row["operations"].items():
                lines.append(f"{operation:>10}" + "".join(_cell(name, found[name]) for name in NAMES if name in found))
    return "\n".join(lines) + "\n"


def _cell(name: str, found: dict[str, float]) -> str:
    ratio = found.get("over_plain", found.get("over_ours"))
    return f"{name:>10} {1e3 * found['seconds']:8.2f} ({ratio:.2f})"


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot a column of panels per operation, a row per varied quantity and a line per candidate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    over = result["over"]
    operations = list(over["channels"][0]["operations"])
    figure, panels = pyplot.subplots(
        len(over), len(operations), figsize=(12, 8), sharey="row", sharex="row", layout="constrained"
    )
    for (quantity, rows), line in zip(over.items(), panels, strict=True):
        values = [row[quantity] for row in rows]
        fixed = {"channels": "{channels} channels", "size": "{size}×{size}", "batch": "batch {batch}"}
        label = ", ".join(text.format(**rows[0]) for name, text in fixed.items() if name != quantity)
        for operation, panel in zip(operations, line, strict=True):
            for color, name in enumerate(NAMES):
                # The naive matrix exists up to a size only.
                known = [(v, row["operations"][operation].get(name)) for v, row in zip(values, rows, strict=True)]
                points = [(value, 1e3 * found["seconds"]) for value, found in known if found is not None]
                if points:
                    panel.loglog(*zip(*points, strict=True), marker="o", color=f"C{color}", label=name)
            panel.set_xticks(values, [str(value) for value in values])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.set_xlabel(f"{quantity} ({label})")
        line[0].set_ylabel("CPU time (ms)")
    for operation, panel in zip(operations, panels[0], strict=True):
        panel.set_title(operation if operation != "step" else "forward + log-det + backward")
    panels[0, 1].legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    pyplot.close(figure)
