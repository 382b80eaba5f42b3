"""The table of the test set, one row per sample."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from src.runs.folder import RunFolder
from src.utils.files import write_csv


class TestTable(pl.Callback):
    """Writes the ``test_table`` of the task into the run folder ``dirpath`` and as a table to W&B."""

    __test__ = False  # pytest would collect it by its name

    def __init__(self, dirpath: str) -> None:
        self.path = RunFolder(dirpath).test_table

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        rows: list[dict[str, float]] = pl_module.test_table
        if not trainer.is_global_zero or not rows:
            return
        columns = list(rows[0])
        data = [[row[column] for column in columns] for row in rows]
        write_csv(self.path, [columns, *data])
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/samples", columns=columns, data=data)
