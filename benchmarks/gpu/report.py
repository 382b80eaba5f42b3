"""The results as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.utils.files import write_text
from src.utils.reading import FileError

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file of JSON lines; a last one that was cut off does not count."""
    if not path.is_file():
        return []
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in complete.splitlines()]


def write_report(folder: Path) -> None:
    """Write ``report.md``: how the steps ended, a table for each kind of result, and what trainings reached."""
    parts = ["# Measured on a GPU\n", _table("steps", read_lines(folder / "steps.jsonl"))]
    kinds: dict[str, list[Line]] = {}
    for line in read_lines(folder / "results.jsonl"):
        if line["what"] != "step" or "error" in line:
            kinds.setdefault(f"{line.pop('step')}: {line.pop('what')}", []).append(line)
    parts += [_table(title, lines) for title, lines in kinds.items()]
    trained = list(_trained(folder / "runs"))
    write_text(folder / "report.md", "\n".join([*parts, *([_table("trainings", trained)] if trained else [])]))


def _trained(folder: Path) -> Iterable[Line]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            summary = read_summary(RunFolder(path).summary)
        except FileError:
            continue  # it was ended before its test
        tested = {name: value for name, value in summary["metrics"].items() if name.startswith("test/")}
        yield {"run": path.name, **{key: summary.get(key) for key in ("steps", "step_time_s", "training_s")}, **tested}


def _table(title: str, lines: list[Line]) -> str:
    columns = list(dict.fromkeys(key for line in lines for key in line))
    rows = [columns, ["---"] * len(columns), *([_cell(line.get(key)) for key in columns] for line in lines)]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_cell(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
