"""The configuration, in everything that a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.utils.config import plain
from src.utils.files import write_text


class RunConfig(pl.Callback):
    """Writes the configuration to ``config.yaml``, to the loggers and, as plain containers, into each checkpoint.

    File and checkpoint keep the interpolations, so that an override of ``seed`` or ``network`` still reaches what
    refers to it; the loggers get values.

    Args:
        config: the whole configuration, with ``run_dir`` set.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file: the data are there by now, and the run begins."""
        if trainer.is_global_zero:
            write_text(Path(self.config.run_dir) / "config.yaml", OmegaConf.to_yaml(self.config))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell the loggers."""
        _log_hyperparameters(trainer, plain(self.config, resolve=True))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add ``checkpoint["config"]``."""
        checkpoint["config"] = plain(self.config, resolve=False)


@rank_zero_only
def _log_hyperparameters(trainer: pl.Trainer, config: dict[str, Any]) -> None:
    for logger in trainer.loggers:
        logger.log_hyperparams(config)
