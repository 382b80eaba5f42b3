"""Where a run writes."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.checks import model_name
from src.utils.errors import ConfigError

# The processes that Lightning starts find here which folder the first one named.
ENVIRONMENT_VARIABLE = "INVERTIBLE_IMAGING_RUN_DIR"
# What the first process of a torchrun serves the others with; it must live as long as they may ask.
_stores: list[Any] = []


def choose_run_dir(config: DictConfig) -> str:
    """Return ``config.run_dir``, or ``outputs/<experiment>/<time>-<model>-<id>``; nothing is created.

    All processes of a distributed run get the same one, whether Lightning or torchrun starts them. The id keeps apart
    runs that start in the same second, as those of a sweep on several machines do.

    Raises:
        ConfigError: if it is not named, and the processes of several machines have no way to agree on one.
    """
    if config.run_dir is not None:
        return config.run_dir
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        return _agreed(_new_name(config))
    if os.environ.get("LOCAL_RANK", "0") != "0" and ENVIRONMENT_VARIABLE in os.environ:
        return os.environ[ENVIRONMENT_VARIABLE]
    tasks = int(os.environ.get("SLURM_NTASKS", "1")) if "SLURM_PROCID" in os.environ else 1
    if tasks > 1 or config.trainer.get("num_nodes", 1) > 1:
        raise ConfigError("expected run_dir=<a folder that all nodes see> for several nodes without torchrun, got null")
    run_dir = _new_name(config)
    os.environ[ENVIRONMENT_VARIABLE] = run_dir
    return run_dir


def _new_name(config: DictConfig) -> str:
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return str(Path("outputs") / config.experiment / f"{started}-{model_name(config)}-{secrets.token_hex(2)}")


def _agreed(run_dir: str) -> str:
    """Return what the first of torchrun's processes calls with; the others wait for it."""
    from torch.distributed import rendezvous

    store, rank, _ = next(rendezvous("env://"))
    _stores.append(store)
    # After a failure torchrun starts the processes again beside the same store; a multirun has several runs.
    key = f"run_dir/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{len(_stores)}"
    if rank == 0:
        store.set(key, run_dir)
    return store.get(key).decode()
