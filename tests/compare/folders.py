"""Run folders as train.py leaves them, without a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.config.checks import plain
from src.config.composition import compose_config
from src.runs.csv_logger import CsvLogger
from src.runs.summary import write_summary

Rows = Sequence[Mapping[str, object]]

CURVE: Rows = [{"step": step, "epoch": 0, "train/loss": 1.0 / (1 + step), "val/psnr": 20.0 + step} for step in range(6)]


@cache
def iunet_config() -> dict[str, Any]:
    """The default configuration."""
    return plain(compose_config(["run_dir=somewhere", "logger=csv"]), resolve=True)


def summary(**changes: Any) -> dict[str, Any]:
    """A whole summary of a run of the iUNet."""
    known = {
        "experiment": "ct_postproc",
        "scale": "small",
        "model": "iunet",
        "backprop": "reversible",
        "seed": 0,
        "metrics": {"test/psnr": 22.5, "test/ssim": 0.86, "test/psnr_fbp": 13.3, "val/psnr": 22.0, "train/loss": 0.006},
        "num_parameters": 1_192_177,
        "step_time_s": 0.3125,
        "total_time_s": 90.0,
        "peak_memory_bytes": 2**30,
        "peak_memory_kind": "process_resident",
        "git_commit": "0123456789abcdef",
        "hardware": {"cpu": "one"},
        "versions": {"torch": "2.14"},
        "config": deepcopy(iunet_config()),
    }
    return known | changes


def write_csv(path: Path, rows: Rows) -> None:
    """Write rows as a run does."""
    logger = CsvLogger(str(path))
    for row in rows:
        values = {name: float(value) for name, value in row.items() if name != "step"}  # type: ignore[arg-type]
        logger.log_metrics(values, int(row["step"]))  # type: ignore[call-overload]


def write_picture(path: Path, side: int = 24, seed: int = 0) -> None:
    """Write a PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_run(folder: Path, rows: Rows = CURVE, pictures: Sequence[str] = (), **changes: Any) -> Path:
    """Write a finished run, and return its folder."""
    write_summary({**summary(**changes), "run_dir": str(folder)})
    write_csv(folder / "csv" / "version_0" / "metrics.csv", rows)
    for number, name in enumerate(pictures):
        write_picture(folder / "images" / f"{name}.png", seed=number)
    return folder
