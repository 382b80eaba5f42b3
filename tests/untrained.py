"""Runs without a training: a checkpoint with weights that no layer starts with."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.config.composition import compose_config
from src.runs.checkpoint_io import AtomicCheckpointIO
from src.runs.folder import RunFolder
from src.runs.formats import FORMAT, FORMAT_KEY


def untrained(folder: Path, *overrides: str) -> Path:
    """Write the best checkpoint of a run into a new run folder, and return the folder."""
    config = compose_config([*overrides, f"run_dir={folder}"])
    torch.manual_seed(0)
    task = instantiate(config.task, _partial_=True)(net=instantiate(config.model))
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    saved = OmegaConf.to_container(config, resolve=True)
    content = {"state_dict": task.state_dict(), "config": saved, "global_step": 0, FORMAT_KEY: FORMAT}
    content["pytorch-lightning_version"] = pl.__version__
    path = RunFolder(folder).checkpoint("best")
    path.parent.mkdir(parents=True)
    AtomicCheckpointIO().save_checkpoint(content, path)
    return folder
