"""What a run comes to: summary.json and the table at the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from src.callbacks.invertibility import Invertibility
from src.callbacks.peak_memory import GIB, PeakMemory
from src.callbacks.step_time import StepTime
from src.callbacks.total_time import TotalTime
from src.config.checks import model_name, plain
from src.runs.build import Run
from src.runs.provenance import provenance
from src.tasks.base import Report
from src.tasks.metrics import to_plain
from src.utils.files import write_text

ROOT = Path(__file__).resolve().parents[2]


def num_parameters(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def summarise(run: Run, metrics: dict[str, float], checkpoint: str | None, total_s: float) -> dict[str, Any]:
    """Return everything that summary.json holds; what a run did not measure is None.

    Args:
        run: after training or testing.
        metrics: the last value of each logged metric.
        checkpoint: the one that was tested.
        total_s: wall time of this process in seconds, data generation included.
    """
    config = run.config
    memory, step_time, invertibility = (run.callback(kind) for kind in (PeakMemory, StepTime, Invertibility))
    total_time = run.callback(TotalTime)
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
        "step_time_s": step_time.median_s if step_time else None,
        "total_time_s": total_s + (total_time.earlier_s if total_time else 0.0),
        "peak_memory_bytes": memory.peak_bytes or None if memory else None,
        "peak_memory_kind": "cuda_allocated" if run.trainer.strategy.root_device.type == "cuda" else "process_resident",
        "invertibility_error": invertibility.last_error if invertibility else None,
        "checkpoint": checkpoint,
        "run_dir": config.run_dir,
        "config": plain(config, resolve=True),
        **provenance(ROOT),
    }


def write_summary(summary: dict[str, Any]) -> Path:
    """Write ``<run_dir>/summary.json`` and return its path."""
    path = Path(summary["run_dir"]) / "summary.json"
    write_text(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return path


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
    for label, value in _costs(summary):
        cost.add_row(label, value)
    console.print(cost)
    # Outside of the table, where a long path is not cut.
    console.print(f"files: {summary['run_dir']}", soft_wrap=True, highlight=False)


def _costs(summary: dict[str, Any]) -> list[tuple[str, str]]:
    costs = [("parameters", f"{summary['num_parameters']:,}")]
    if summary["step_time_s"] is not None:
        costs.append(("steps", f"{summary['steps']} in {summary['epochs']} epochs"))
        costs.append(("time per step", f"{summary['step_time_s'] * 1000:.1f} ms"))
    costs.append(("total time", f"{summary['total_time_s'] / 60:.1f} min"))
    if summary["peak_memory_bytes"] is not None:
        kind = summary["peak_memory_kind"].replace("_", ", ")
        costs.append(("peak memory", f"{summary['peak_memory_bytes'] / GIB:.2f} GiB ({kind})"))
    if summary["invertibility_error"] is not None:
        costs.append(("invertibility error", f"{summary['invertibility_error']:.2e}"))
    return costs
