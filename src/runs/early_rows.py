"""Log rows of metrics before Lightning does.

Lightning logs the metrics of a step or an epoch after the callbacks' hooks. A checkpoint written in such a hook counts
the step as done, so a run that is killed before the row is logged would never log it after it resumes. Lightning logs
the row a second time, and the loggers drop the repetition (`src.loggers.run_logger.LatestRow`).
"""

from typing import Any

import pytorch_lightning as pl


def log_row_of_step(trainer: pl.Trainer) -> None:
    """Log the row of a step, which Lightning logs after ``on_train_batch_end``."""
    connector = _connector(trainer)
    if connector is not None:
        connector.update_train_step_metrics()


def log_row_of_epoch(trainer: pl.Trainer) -> None:
    """Log the row of an epoch, which Lightning logs after ``on_train_epoch_end`` for the epoch's last step."""
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
    """Return the part of Lightning that logs; None in a version without it, where the rows come later."""
    connector = getattr(trainer, "_logger_connector", None)
    needed = ("update_train_step_metrics", "log_metrics", "metrics")
    counts = hasattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped")
    return connector if counts and all(hasattr(type(connector), name) for name in needed) else None
