"""The configuration, in everything that a run leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from src.config.checks import model_name, plain
from src.loggers.run_logger import RunLogger
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
        self._told = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the file and tell the loggers: the data are there by now, and the run begins."""
        if not trainer.is_global_zero or self._told:
            return
        self._told = True  # the test of the same run comes with the same configuration
        write_text(Path(self.config.run_dir) / "config.yaml", OmegaConf.to_yaml(self.config))
        tags = [self.config.experiment, self.config.scale, model_name(self.config), self.config.backprop]
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.describe(plain(self.config, resolve=True), tags)
            else:
                logger.log_hyperparams(plain(self.config, resolve=True))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add ``checkpoint["config"]``."""
        checkpoint["config"] = plain(self.config, resolve=False)
