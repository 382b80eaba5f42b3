"""Where a run writes."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig

from src.utils.config import model_name

# The processes of a distributed run start one after another, and must agree on the folder that the first one named.
ENVIRONMENT_VARIABLE = "INVERTIBLE_IMAGING_RUN_DIR"


def choose_run_dir(config: DictConfig) -> str:
    """Return ``config.run_dir``, or ``outputs/<experiment>/<time>-<model>-<id>``; nothing is created.

    The id keeps apart runs that start in the same second, as those of a sweep on several machines do.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and ENVIRONMENT_VARIABLE in os.environ:
        return os.environ[ENVIRONMENT_VARIABLE]
    run_dir = config.run_dir
    if run_dir is None:
        started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        run_dir = str(Path("outputs") / config.experiment / f"{started}-{model_name(config)}-{secrets.token_hex(2)}")
    os.environ[ENVIRONMENT_VARIABLE] = run_dir
    return run_dir
