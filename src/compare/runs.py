"""Read the summary, configuration, curves and pictures of a run in a form that the page can show."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.config.checks import model_name
from src.runs.config_file import read_config
from src.runs.folder import RunFolder, Series
from src.runs.history import History, read_history
from src.runs.summary import check_sections, read_summary
from src.utils.reading import MAX_INTEGER, finite_number, reading

TEXTS = ("experiment", "scale", "model", "backprop", "git_commit", "peak_memory_kind")
MAX_CHARACTERS = 200


@dataclass(frozen=True)
class RunRecord:
    """One row of the table.

    Attributes:
        path: the run folder, or the file that its summary was read from.
        summary: the content of summary.json without the configuration; for an unfinished run, the part known so far.
        config: the resolved configuration, as plain containers.
        finished: whether there is a summary of the whole run.
        history: every metric over the steps; empty for a summary alone.
        pictures: the pictures by name.
    """

    path: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    finished: bool = True
    history: History = field(default_factory=dict)
    pictures: dict[str, Series] = field(default_factory=dict)


def read_run(path: Path) -> RunRecord:
    """Read a run folder; without a summary of all its steps, the run is unfinished.

    Raises:
        ValueError: for a folder without a run, or a damaged file, naming it.
    """
    folder = RunFolder(path)
    if not folder.is_run():
        raise ValueError(
            f"expected a run folder with {folder.summary.name}, got {str(path)!r} without it and {folder.config.name}"
        )
    history, pictures = read_history(folder), folder.pictures()
    if folder.summary.is_file():
        record = read_result(folder.summary)
        steps = record.summary.get("steps")
        # Whether the run was resumed after its summary was written, and has not reached its new end.
        goes_on = steps is not None and any(points[-1][0] > steps for points in history.values())
        if not goes_on or not folder.config.is_file():
            return RunRecord(path, record.summary, record.config, True, history, pictures)
    config = read_config(folder.config)
    with reading(folder.config, "the configuration of a run"):
        return RunRecord(path, _summary_so_far(config, history), config, False, history, pictures)


def read_result(path: Path) -> RunRecord:
    """Read a summary that stands alone, such as those in ``experiments/<key>/results``.

    Raises:
        ValueError: if it is not one.
    """
    summary = read_summary(path)
    config = summary.pop("config")
    return RunRecord(path, _presentable(summary), config)


def _summary_so_far(config: dict[str, Any], history: History) -> dict[str, Any]:
    """What is known of a run without a summary: not its times and parameters, which are measured at its end."""
    absent = [key for key in ("experiment", "scale", "model", "backprop", "seed") if key not in config]
    if absent:
        raise ValueError(f"it has no {', '.join(absent)}")
    check_sections(config)
    summary = {key: config[key] for key in ("experiment", "scale", "backprop", "seed")}
    metrics = {name: points[-1][1] for name, points in sorted(history.items())}
    return _presentable({**summary, "model": model_name(config), "metrics": metrics})


def _presentable(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary, possibly from someone else, with valid texts and a seed that JavaScript can represent."""
    seed = summary.get("seed")
    number = finite_number(seed)
    texts = {key: _as_text(summary[key]) for key in TEXTS if key in summary}
    return {**summary, **texts, "seed": _as_text(seed) if number is None or abs(number) > MAX_INTEGER else number}


def _as_text(value: Any) -> str | None:
    """Return a value as text that can be shown and encoded; None stays None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # Half of a surrogate pair cannot be encoded in UTF-8.
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= MAX_CHARACTERS else f"{clean[:MAX_CHARACTERS]}…"
