"""The committed result of a run: its metrics and where they come from."""

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from src.runs.summary import read_summary
from src.sweeps.cell import Cell
from src.sweeps.command import for_people
from src.sweeps.identity import agree, identity_of_config, is_execution_key
from src.utils.files import write_text
from src.utils.nested import dotted
from src.utils.reading import as_mapping, reading

# Paths on the measuring machine, and pictures and logs, which are not results.
LEFT_OUT = ("checkpoint", "run_dir")
# The keys that every result must have.
REQUIRED = (
    *("cell", "digest", "model", "seed", "metrics", "config", "num_parameters"),
    *("finished", "git_commit", "hardware", "versions"),
)
LEFT_OUT_OF_CONFIG = ("choices", "logger", "run_dir", "resume")


def result_of(cell: Cell) -> dict[str, Any]:
    """Return the result of a finished cell: its summary without paths, with its command, digest and date."""
    summary = cell.summary()
    config = {key: value for key, value in summary.get("config", {}).items() if key not in LEFT_OUT_OF_CONFIG}
    if "callbacks" in config:
        callbacks = (config["callbacks"] or {}).items()
        config["callbacks"] = {name: node for name, node in callbacks if not is_execution_key(f"callbacks.{name}")}
    finished = datetime.fromtimestamp(cell.run.summary.stat().st_mtime, timezone.utc)
    return {
        **{key: value for key, value in summary.items() if key not in LEFT_OUT},
        "config": config,
        "cell": cell.name,
        "digest": cell.digest,
        "command": for_people([word for word in cell.command() if not word.startswith("run_dir=")]),
        "finished": finished.isoformat(timespec="seconds"),
    }


def store(cells: Iterable[Cell], folder: Path, *, per_sample: bool = False) -> None:
    """Write the results of the finished cells to ``<folder>/<cell>.json``.

    With ``per_sample``, the numbers of each test sample go to ``<cell>.csv`` beside it.
    """
    for cell in cells:
        if not cell.is_finished():
            continue
        write_text(folder / f"{cell.name}.json", json.dumps(result_of(cell), indent=1, sort_keys=True) + "\n")
        if per_sample and cell.run.test_table.is_file():
            write_text(folder / f"{cell.name}.csv", cell.run.test_table.read_text(encoding="utf-8"))


def stored_names(folder: Path) -> list[str]:
    """Return the names of the cells whose results are in a folder."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load(folder: Path, cells: Iterable[Cell] | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the results in a folder, one file per run, and the names of those left out.

    A result is left out if it is of none of the cells, or if its cell would now run with another configuration. Without
    cells all results are returned.
    """
    results = [_read_result(folder / f"{name}.json") for name in stored_names(folder)]
    if cells is None:
        return results, []
    today = {cell.name: cell for cell in cells}
    is_current = [r["cell"] in today and _is_of(r, today[r["cell"]]) for r in results]
    return list(compress(results, is_current)), [r["cell"] for r in compress(results, map(not_, is_current))]


def _is_of(result: dict[str, Any], cell: Cell) -> bool:
    """Whether a cell would now run with the configuration of a result."""
    if not isinstance(cell.identity, dict):  # the cell of a program without a configuration of ours
        return result["digest"] == cell.digest
    from src.config.moved import modernised  # imports Hydra, which a page of runs does without

    stored = identity_of_config(modernised(result["config"]))
    # Results of format 0 are stored without their callbacks.
    expected = {key: value for key, value in cell.identity.items() if key in stored or key != "callbacks"}
    return agree(stored, expected)


def _read_result(path: Path) -> dict[str, Any]:
    result = read_summary(path, REQUIRED)
    with reading(path, "the result of a run"):
        as_mapping(result["hardware"])
        as_mapping(result["versions"])
    return result


def describe(model: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return everything ``match`` can ask of a run: its configuration by dotted key, and ``model``."""
    return {**dict(dotted(config)), "model": model}


def fits(description: dict[str, Any], match: dict[str, Any]) -> bool:
    """Whether a run has all values of ``match``."""
    return all(key in description and description[key] == value for key, value in match.items())
