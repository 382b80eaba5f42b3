"""What a run left behind: its summary, configuration, curves and pictures."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.compare.foreign import as_seed, as_text, check_depth, read_config
from src.compare.history import History, read_history
from src.config.checks import model_name
from src.utils.reading import FileError, reading

# A picture over the epochs; a picture that is made once has the epoch None.
Series = dict[int | None, Path]

TEXTS = ("experiment", "scale", "model", "backprop", "git_commit", "peak_memory_kind")
NUMBERS = ("steps", "num_parameters", "step_time_s", "total_time_s", "peak_memory_bytes", "invertibility_error")


@dataclass(frozen=True)
class Run:
    """One row of the table.

    Attributes:
        path: the run folder, or the file that its summary was read from.
        summary: what summary.json holds, without the configuration; of an unfinished run, what is known of it.
        config: resolved, as plain containers.
        finished: whether there is a summary of the whole run.
        history: every metric over the steps; empty for a summary alone.
        pictures: by name.
    """

    path: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    finished: bool = True
    history: History = field(default_factory=dict)
    pictures: dict[str, Series] = field(default_factory=dict)


def is_run_folder(folder: Path) -> bool:
    """Whether a run wrote into ``folder``, finished or not."""
    return (folder / "summary.json").is_file() or (folder / "config.yaml").is_file()


def read_run(folder: Path) -> Run:
    """Read a run folder; one with a configuration and no summary of all its steps yet is an unfinished run.

    Raises:
        ValueError: for another folder, or a damaged file in it, naming the file.
    """
    if not is_run_folder(folder):
        raise ValueError(f"expected a run folder with summary.json, got {str(folder)!r} without it and config.yaml")
    history = read_history(folder)
    pictures = find_pictures(folder / "images")
    if (folder / "summary.json").is_file():
        summary, config = _read_summary(folder / "summary.json")
        if not _goes_on(history, summary) or not (folder / "config.yaml").is_file():
            return Run(folder, summary, config, True, history, pictures)
    with reading(folder / "config.yaml", "the configuration of a run"):
        config = read_config(folder / "config.yaml")
        return Run(folder, _summary_so_far(config, history, folder / "config.yaml"), config, False, history, pictures)


def read_result(path: Path) -> Run:
    """Read a ``summary.json`` that stands alone, as those in ``experiments/<key>/results``.

    Raises:
        ValueError: if it is not one.
    """
    summary, config = _read_summary(path)
    return Run(path, summary, config)


def find_pictures(folder: Path) -> dict[str, Series]:
    """Return the PNG pictures of ``folder``: ``<name>-epoch-<number>.png`` are one series."""
    found: dict[str, Series] = {}
    for path in sorted(folder.glob("*.png")):
        match = re.fullmatch(r"(.+)-epoch-(\d+)", path.stem)
        name, epoch = (match.group(1), int(match.group(2))) if match else (path.stem, None)
        found.setdefault(name, {})[epoch] = path
    return found


def _goes_on(history: History, summary: dict[str, Any]) -> bool:
    """Whether the run was resumed after its summary was written, and has not come to the next one."""
    steps = summary.get("steps")
    return steps is not None and any(points[-1][0] > steps for points in history.values())


def _read_summary(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the summary without its configuration, and the configuration."""
    with reading(path, "the summary of a run as JSON"):
        summary = json.loads(path.read_text(encoding="utf-8"))
        check_depth(summary)
        problem = _problem_of(summary)
        if problem:
            raise FileError(f"expected the summary of a run, got {str(path)!r} {problem}")
        config = summary.pop("config")
        return _presentable(summary), config


def _problem_of(summary: Any) -> str | None:
    """Say what keeps ``summary`` from being one."""
    if not isinstance(summary, dict):
        return "with no JSON object"
    absent = [key for key in ("experiment", "model", "metrics", "config") if key not in summary]
    if absent:
        return f"without {', '.join(absent)}"
    for key in ("metrics", "config"):
        if not isinstance(summary[key], dict):
            return f"whose {key} is {reprlib.repr(summary[key])}, no JSON object"
    numbers = {**summary["metrics"], **{key: summary.get(key) for key in NUMBERS}}
    wrong = [key for key, value in numbers.items() if not (value is None or _is_number(value))]
    if wrong:
        return f"whose {wrong[0]} is {reprlib.repr(numbers[wrong[0]])}, no number"
    return _problem_of_config(summary["config"])


def _problem_of_config(config: dict[str, Any]) -> str | None:
    """Say what keeps the sections that are read here from being some; they may be absent."""
    wrong = [key for key in ("monitor", "trainer", "model") if not isinstance(config.get(key, {}), dict)]
    return f"whose {wrong[0]} is {reprlib.repr(config[wrong[0]])}, no section" if wrong else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _summary_so_far(config: dict[str, Any], history: History, path: Path) -> dict[str, Any]:
    """What is known of a run without a summary. Times and parameters are not: they are measured at its end."""
    absent = [key for key in ("experiment", "scale", "model", "backprop", "seed") if key not in config]
    problem = f"without {', '.join(absent)}" if absent else _problem_of_config(config)
    if problem:
        raise FileError(f"expected the configuration of a run, got {str(path)!r} {problem}")
    return _presentable(
        {
            **{key: config[key] for key in ("experiment", "scale", "backprop", "seed")},
            "model": model_name(config),
            "metrics": {name: points[-1][1] for name, points in sorted(history.items())},
        }
    )


def _presentable(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary with what is shown as text being text, whatever it was."""
    texts = {key: as_text(summary[key]) for key in TEXTS if key in summary}
    return {**summary, **texts, "seed": as_seed(summary.get("seed"))}
