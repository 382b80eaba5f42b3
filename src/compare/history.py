"""The curves of a run: what its csv logger wrote, or what its checkpoint remembers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.runs.curve_history import History, history_of_checkpoint
from src.utils.reading import MAX_INTEGER, reading

# What a metrics.csv has beside metrics.
COUNTERS = ("step", "epoch")


def read_history(run_dir: Path) -> History:
    """Return every metric over the steps of the run in ``run_dir``, across interruptions; empty without any.

    Runs that were resumed have a ``csv/version_<n>/metrics.csv`` per start. Runs without a csv logger have the
    history that the callback Curves keeps in ``checkpoints/last.ckpt``.

    Raises:
        ValueError: for a damaged file, naming it.
    """
    files = sorted((run_dir / "csv").rglob("metrics.csv"), key=_version)
    if not files:
        return _history_of_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    history: History = {}
    for file in files:
        history = merge(history, read_csv(file))
    return history


def read_csv(path: Path) -> History:
    """Return the metrics of one ``metrics.csv``; the last value of a step counts, a line cut short at the end does not.

    Raises:
        ValueError: for a file without steps, or a line that is not as long as the header or not of numbers.
    """
    rows = _rows(path)
    if not rows:
        return {}
    header = rows[0]
    if "step" not in header:
        raise ValueError(f"expected a metrics.csv with a column 'step', got {', '.join(header)!r} in {str(path)!r}")
    values: dict[str, dict[int, float]] = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            cells = dict(zip(header, row, strict=True))
            step = _step(cells["step"])
            for name, cell in cells.items():
                if cell and name not in COUNTERS:
                    values.setdefault(name, {})[step] = float(cell)
        except ValueError as error:
            raise ValueError(
                f"expected {len(header)} numbers or empty cells in line {number} of {str(path)!r}, "
                f"got {','.join(row)!r}"
            ) from error
    return {name: sorted(points.items()) for name, points in values.items()}


def _rows(path: Path) -> list[list[str]]:
    with reading(path, "a metrics.csv"):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            # The run was killed while it wrote: half a number reads like another number.
            lines.pop()
        return list(csv.reader(lines))


def merge(earlier: History, later: History) -> History:
    """Return the history of a run that went on: ``later`` replaces whatever ``earlier`` has from its first step on.

    A run that was killed goes on from its last checkpoint, and does again the steps that were logged after it.
    """
    starts = [points[0][0] for points in later.values()]
    if not starts:
        return earlier
    first = min(starts)
    merged = {name: [p for p in points if p[0] < first] for name, points in earlier.items()}
    for name, points in later.items():
        merged.setdefault(name, []).extend(points)
    return {name: points for name, points in merged.items() if points}


def thin(points: Sequence[tuple[int, float]], limit: int) -> dict[str, Any]:
    """Return at most ``limit`` points as lists: ``step``, ``value`` and, where points were put together, their range.

    Neighbours are averaged in groups of ``group`` points; ``low`` and ``high`` hold the smallest and largest value
    of each group, so that no spike is lost. A value that is not finite is None, and so is a group of nothing else.
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
    # Six digits are more than a screen shows, and half the bytes.
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _version(path: Path) -> int:
    match = re.fullmatch(r"version_(\d+)", path.parent.name)
    return int(match.group(1)) if match else -1


def _history_of_checkpoint(path: Path) -> History:
    if not path.is_file():
        return {}
    # Only such runs pay for the import of torch.
    from src.runs.checkpoints import read_checkpoint

    with reading(path, "a checkpoint with curves"):
        history = history_of_checkpoint(read_checkpoint(path))
        return {str(name): [(_step(step), float(value)) for step, value in p] for name, p in history.items() if p}


def _step(value: int | str) -> int:
    """Return a number of steps that the page can count with."""
    step = int(value)
    if not -MAX_INTEGER <= step <= MAX_INTEGER:
        raise ValueError(f"expected at most {MAX_INTEGER} steps, got {value}")
    return step
