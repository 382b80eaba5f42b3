"""The page: data, style and script in one file that loads nothing from the network."""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from src.compare import pictures
from src.compare.columns import columns_of, values_of
from src.compare.differences import differences
from src.compare.runs import RunRecord
from src.compare.sources import Sources

ASSETS = Path(__file__).parent / "assets"
# The order matters: later scripts use what earlier ones define.
SCRIPTS = ("base", "state", "plot", "runs", "differences", "curves", "pictures", "tradeoff", "main")
MAX_POINTS = 2000


def build_page(sources: Sources, images: str = "all") -> str:
    """Return the page of at least one run as HTML and note in ``sources.notes`` what it cannot show.

    It embeds the pictures that ``images`` selects: ``all``, ``test`` or ``none``.
    """
    script = "\n".join((ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}\n}})();\n'
    style = (ASSETS / "style.css").read_text(encoding="utf-8")
    data = page_data(sources, images)
    parts = {
        "title": html.escape(data["title"]),
        # The hashes allow only these two blocks, so the data cannot inject a script.
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "style": style,
        "data": script_safe(data),
        "script": script,
    }
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match.group(1)], template)


def page_data(sources: Sources, images: str) -> dict[str, Any]:
    """Return the data that the page's script shows, as plain containers."""
    runs = list(sources.runs.values())
    experiments = sorted({str(run.summary["experiment"]) for run in runs})
    # One picture takes about 30 ms, so hundreds take several seconds.
    console = Console(stderr=True)
    named = track(sources.runs.items(), "Reading pictures", console=console, disable=not console.is_terminal)
    shown = [_run_data(name, run, images, sources.notes) for name, run in named]
    figures = sources.figures if images != "none" else {}
    uris = {name: pictures.data_uri_or_note(path, sources.notes) for name, path in figures.items()}
    return {
        "title": f"{', '.join(experiments)}: {len(runs)} run{'s' if len(runs) != 1 else ''}",
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "runs": shown,
        "columns": [column._asdict() for column in columns_of(runs)],
        "differences": [{"key": key, "values": values} for key, values in differences(runs)],
        "figures": [[name, uri] for name, uri in uris.items() if uri],
        "maxEpochs": pictures.MAX_EPOCHS,
        "images": images,
        "notes": sources.notes,
    }


def script_safe(data: Any) -> str:
    """Return ``data`` as JSON without ``<``, so that it cannot end the script element around it."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _run_data(name: str, run: RunRecord, images: str, notes: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "path": str(run.path),
        "finished": run.finished,
        "commit": run.summary.get("git_commit"),
        "memoryKind": run.summary.get("peak_memory_kind"),
        "values": values_of(run),
        # A test metric is a single point, which the table shows.
        "curves": {m: thin(points, MAX_POINTS) for m, points in run.history.items() if not m.startswith("test/")},
        "pictures": pictures.embed(run, images, notes),
        "seriesLengths": {key: len(series) for key, series in run.pictures.items()},
    }


def thin(points: Sequence[tuple[int, float]], limit: int) -> dict[str, Any]:
    """Return at most ``limit`` points as lists: ``step``, ``value`` and, if points were merged, their range.

    Neighbours are averaged in groups of ``group`` points; ``low`` and ``high`` hold the smallest and largest value
    of each group, so that no spike is lost. Non-finite values, and groups without a finite value, are None.
    """
    group = math.ceil(len(points) / limit)
    if group <= 1:
        return {"step": [step for step, _ in points], "value": [_rounded(value) for _, value in points], "group": 1}
    groups = [points[start : start + group] for start in range(0, len(points), group)]
    finite = [[value for _, value in members if math.isfinite(value)] for members in groups]
    return {
        "step": [members[len(members) // 2][0] for members in groups],
        "value": [_rounded(sum(values) / len(values)) if values else None for values in finite],
        "low": [_rounded(min(values)) if values else None for values in finite],
        "high": [_rounded(max(values)) if values else None for values in finite],
        "group": group,
    }


def _rounded(value: float) -> float | None:
    # Six digits are more than a screen shows, and take half the bytes.
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
