"""The result of a run as it is committed: its metrics and where they come from."""

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

# Places on the machine that measured, and pictures and logs, which are not results.
LEFT_OUT = ("checkpoint", "run_dir")
# What a table asks of every result.
REQUIRED = (
    *("cell", "digest", "model", "seed", "metrics", "config", "num_parameters"),
    *("finished", "git_commit", "hardware", "versions"),
)
LEFT_OUT_OF_CONFIG = ("callbacks", "logger", "run_dir", "resume")


def result_of(cell: Cell) -> dict[str, Any]:
    """Return what is kept of a finished cell: its summary without places, with its command, digest and date."""
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
    """Return the results in a folder, and the names of those that are left out.

    Args:
        folder: with a file per run.
        cells: as they would run now; a result of one of them under another configuration is left out.
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
            raise ValueError(f"it has no {', '.join(missing)}")
        for key in ("metrics", "config", "hardware", "versions"):
            as_mapping(result[key])
        wrong = [key for key, value in result["metrics"].items() if not isinstance(value, int | float | None)]
        if wrong:
            raise ValueError(f"expected numbers as metrics, got {wrong[0]} as {result['metrics'][wrong[0]]!r}")
        return result


def describe(model: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return what a table can ask of a run: every value of its configuration, dotted, and the name of its network."""
    return {**dict(_dotted(config, "")), "model": model}


def _dotted(node: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        yield prefix + key, value
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def fits(description: dict[str, Any], match: dict[str, Any]) -> bool:
    """Whether a run has all values that ``match`` asks for."""
    return all(key in description and description[key] == value for key, value in match.items())
