"""The committed result of a run: its metrics and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from src.sweeps.cell import Cell
from src.sweeps.command import for_people
from src.utils.files import write_text
from src.utils.reading import as_mapping, read_json, reading

# Paths on the measuring machine, and pictures and logs, which are not results.
LEFT_OUT = ("checkpoint", "run_dir")
# The keys that every result must have.
REQUIRED = (
    *("cell", "digest", "model", "seed", "metrics", "config", "num_parameters"),
    *("finished", "git_commit", "hardware", "versions"),
)
LEFT_OUT_OF_CONFIG = ("callbacks", "logger", "run_dir", "resume")


def result_of(cell: Cell) -> dict[str, Any]:
    """Return the result of a finished cell: its summary without paths, with its command, digest and date."""
    summary = cell.summary()
    config = {key: value for key, value in summary.get("config", {}).items() if key not in LEFT_OUT_OF_CONFIG}
    finished = datetime.fromtimestamp(cell.summary_path.stat().st_mtime, timezone.utc)
    return {
        **{key: value for key, value in summary.items() if key not in LEFT_OUT},
        "config": config,
        "cell": cell.name,
        "digest": cell.digest,
        "command": for_people([word for word in cell.command() if not word.startswith("run_dir=")]),
        "finished": finished.isoformat(timespec="seconds"),
    }


def store(cells: Iterable[Cell], folder: Path) -> None:
    """Write the results of the finished cells to ``<folder>/<cell>.json``."""
    for cell in cells:
        if cell.is_finished():
            write_text(folder / f"{cell.name}.json", json.dumps(result_of(cell), indent=1, sort_keys=True) + "\n")


def load(folder: Path, cells: Iterable[Cell] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the results in a folder, and the names of those left out.

    Args:
        folder: the results, one file per run.
        cells: the runs with their present configurations; a result of one of them with another digest is left out.
    """
    results = [_read_result(path) for path in sorted(folder.glob("*.json"))]
    digests = {cell.name: cell.digest for cell in cells}
    current = [result for result in results if digests.get(result["cell"], result["digest"]) == result["digest"]]
    return current, [result["cell"] for result in results if result not in current]


def _read_result(path: Path) -> dict[str, Any]:
    expected = "the result of a run"
    with reading(path, expected):
        result = read_json(path, expected)
        missing = [key for key in REQUIRED if key not in result]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for key in ("metrics", "config", "hardware", "versions"):
            as_mapping(result[key])
        wrong = [key for key, value in result["metrics"].items() if not isinstance(value, int | float | None)]
        if wrong:
            raise ValueError(f"expected metrics to be numbers, got {wrong[0]}={result['metrics'][wrong[0]]!r}")
        return result


def describe(model: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return everything ``match`` can ask of a run: its configuration by dotted key, and ``model``."""
    return {**dict(_dotted(config, "")), "model": model}


def _dotted(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        yield prefix + key, value
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def fits(description: dict[str, Any], match: dict[str, Any]) -> bool:
    """Whether a run has all values of ``match``."""
    return all(key in description and description[key] == value for key, value in match.items())
