"""The table of the test set, one row per sample."""

import csv
import io
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from src.runs.folder import RunFolder
from src.utils.files import write_text


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
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_table("test/samples", columns=columns, data=[[row[c] for c in columns] for row in rows])
