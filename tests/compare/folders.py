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
from src.runs.config_file import write_config
from src.runs.csv_logger import CsvLogger
from src.runs.folder import RunFolder, picture_name
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


def write_history(folder: Path, rows: Rows) -> None:
    """Write rows as a run does."""
    logger = CsvLogger(str(RunFolder(folder).metrics))
    for row in rows:
        values = {name: float(value) for name, value in row.items() if name != "step"}  # type: ignore[arg-type]
        logger.log_metrics(values, int(row["step"]))  # type: ignore[call-overload]


def write_picture(path: Path, side: int = 24, seed: int = 0) -> None:
    """Write a PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_run(
    folder: Path, rows: Rows = CURVE, pictures: Sequence[tuple[str, int | None]] = (), **changes: Any
) -> Path:
    """Write a finished run, and return its folder."""
    write_summary({**summary(**changes), "run_dir": str(folder)})
    write_history(folder, rows)
    for number, (name, epoch) in enumerate(pictures):
        write_picture(RunFolder(folder).images / picture_name(name, epoch), seed=number)
    return folder


def write_unfinished(folder: Path, *overrides: str) -> Path:
    """Write what a run of the U-Net has before its end, and return its folder."""
    write_config(compose_config(["model=unet", "seed=3", "logger=csv", f"run_dir={folder}", *overrides]))
    write_history(folder, CURVE)
    return folder
