"""Rows of metrics that are logged before Lightning logs them.

Lightning logs the metrics of a step, and of an epoch, after the callbacks' hooks. A checkpoint that is written in such
a hook counts the step as done: a run that is killed before the row is logged, and goes on from there, would never log
it. Lightning logs the row again, and the loggers drop what comes twice (`src.loggers.run_logger.LatestRow`).
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def log_row_of_step(trainer: pl.Trainer) -> None:
    """Log what Lightning logs of a step after ``on_train_batch_end``."""
    connector = _connector(trainer)
    if connector is not None:
        connector.update_train_step_metrics()


def log_row_of_epoch(trainer: pl.Trainer) -> None:
    """Log what Lightning logs of an epoch after ``on_train_epoch_end``; it belongs to the epoch's last step."""
    connector = _connector(trainer)
    if connector is None:
        return
    loop = trainer.fit_loop.epoch_loop
    loop._batches_that_stepped -= 1  # as Lightning does
    try:
        connector.log_metrics(connector.metrics["log"])
    finally:
        loop._batches_that_stepped += 1


def _connector(trainer: pl.Trainer) -> Any:
    """Return the part of Lightning that logs, or None where another version has none such: rows then come later."""
    connector = getattr(trainer, "_logger_connector", None)
    needed = ("update_train_step_metrics", "log_metrics", "metrics")
    counts = hasattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped")
    return connector if counts and all(hasattr(type(connector), name) for name in needed) else None
