"""summary.json: the result of a run, and the table that train.py and eval.py print of it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich.console import Console
from rich.table import Table

from src.config.checks import model_name, plain
from src.runs.folder import RunFolder
from src.runs.formats import FORMAT, FORMAT_KEY, check_depth, check_format
from src.runs.provenance import hardware, versions
from src.tasks.metrics import to_plain
from src.utils.files import write_text
from src.utils.reading import reading

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from src.runs.build import Run
    from src.tasks.base import Report

GIB = 2**30
# What callbacks measure.
MEASURED = ("step_time_s", "peak_memory_bytes", "peak_memory_kind", "invertibility_error")
NUMBERS = ("steps", "num_parameters", "step_time_s", "total_time_s", "peak_memory_bytes", "invertibility_error")
# Every summary has these; a table or a search asks for more or fewer.
REQUIRED = ("experiment", "model", "metrics", "config")


@runtime_checkable
class Summarised(Protocol):
    """A callback whose measurements belong to the summary."""

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the measurements by their names in summary.json."""


def num_parameters(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def summarise(run: Run, metrics: dict[str, float], checkpoint: str | None, total_s: float) -> dict[str, Any]:
    """Return the content of summary.json after training or testing; what the run did not measure is None.

    Args:
        metrics: the last value of each logged metric; those of validation are the checkpoint's.
        checkpoint: the one that was tested.
        total_s: wall time of this process in seconds, data generation included.
    """
    config = run.config
    measured = dict.fromkeys(MEASURED)
    for callback in run.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Summarised):
            measured.update(callback.summary(run.trainer))
    return {
        "experiment": config.experiment,
        "scale": config.scale,
        "model": model_name(config),
        "backprop": config.backprop,
        "seed": config.seed,
        "metrics": {name: value if math.isfinite(value) else None for name, value in sorted(metrics.items())},
        "metric_descriptions": to_plain(run.metric_descriptions()),
        "epochs": run.trainer.current_epoch,
        "steps": run.trainer.global_step,
        "num_parameters": num_parameters(run.task),
        "total_time_s": run.state.earlier_s + total_s,
        **measured,
        "checkpoint": checkpoint,
        "run_dir": config.run_dir,
        "config": plain(config, resolve=True),
        "git_commit": run.state.commits[-1],
        "earlier_git_commits": run.state.commits[:-1],
        "hardware": hardware(run.trainer.device_ids if run.trainer.strategy.root_device.type == "cuda" else ()),
        "versions": versions(),
    }


def write_summary(summary: dict[str, Any]) -> Path:
    """Write ``<run_dir>/summary.json`` and return its path."""
    path = RunFolder(summary["run_dir"]).summary
    write_text(path, json.dumps({FORMAT_KEY: FORMAT, **summary}, indent=2, allow_nan=False) + "\n")
    return path


def read_summary(path: Path, required: Sequence[str] = REQUIRED) -> dict[str, Any]:
    """Read a summary.json, or a copy of one, such as a result of a paper's table.

    Raises:
        FileError: for a damaged file, one of a later version, or one that no run writes.
    """
    with reading(path, "the summary of a run"):
        summary = json.loads(path.read_text(encoding="utf-8"))
        check_depth(summary)
        if not isinstance(summary, dict):
            raise ValueError(f"expected a JSON object, got {reprlib.repr(summary)}")
        check_format(summary, path)
        absent = [key for key in required if key not in summary]
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
        metrics, config = summary.get("metrics", {}), summary.get("config", {})
        for key, value in {"metrics": metrics, "config": config}.items():
            if not isinstance(value, dict):
                raise ValueError(f"expected {key} to be a JSON object, got {reprlib.repr(value)}")
        check_sections(config)
        for key, value in {**metrics, **{key: summary.get(key) for key in NUMBERS}}.items():
            if not (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
                raise ValueError(f"expected {key} to be a number, got {reprlib.repr(value)}")
        return summary


def check_sections(config: dict[str, Any]) -> None:
    """Check that the sections of a run's configuration that readers look into are sections; they may be absent.

    Raises:
        ValueError: naming one that is not.
    """
    for key in ("monitor", "trainer", "model"):
        if not isinstance(config.get(key, {}), dict):
            raise ValueError(f"expected {key} to be a section, got {reprlib.repr(config[key])}")


def print_table(summary: dict[str, Any], report: Report | None = None, console: Console | None = None) -> None:
    """Print the task's result, then what the run cost and where its files are."""
    console = console or Console()
    if report is not None:
        console.print(f"{summary['experiment']} ({summary['scale']}), {summary['model']}: test set", highlight=False)
        quality = Table()
        for position, column in enumerate(report.columns):
            quality.add_column(column, justify="right" if position else "left")
        for row in report.rows:
            quality.add_row(*row)
        console.print(quality)
    cost = Table(show_header=False)
    cost.add_row("parameters", f"{summary['num_parameters']:,}")
    if summary["step_time_s"] is not None:
        cost.add_row("steps", f"{summary['steps']} in {summary['epochs']} epochs")
        cost.add_row("time per step", f"{summary['step_time_s'] * 1000:.1f} ms")
    cost.add_row("total time", f"{summary['total_time_s'] / 60:.1f} min")
    if summary["peak_memory_bytes"] is not None:
        kind = summary["peak_memory_kind"].replace("_", ", ")
        cost.add_row("peak memory", f"{summary['peak_memory_bytes'] / GIB:.2f} GiB ({kind})")
    if summary["invertibility_error"] is not None:
        cost.add_row("invertibility error", f"{summary['invertibility_error']:.2e}")
    console.print(cost)
    # Outside of the table, where a long path is not cut.
    console.print(f"files: {summary['run_dir']}", soft_wrap=True, highlight=False)
