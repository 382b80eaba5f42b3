"""What stays of a feature where Lightning lacks the private interface that it is built on."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from src.runs.early_rows import log_row_of_epoch, log_row_of_step
from src.runs.interrupt import CheckpointOnInterrupt


def test_without_lightnings_flag_a_signal_ends_the_run_where_the_last_checkpoint_counts(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(is_last_batch=True, world_size=1)
    module: Any = None
    callback = CheckpointOnInterrupt(str(tmp_path))
    callback.on_validation_start(trainer, module)
    callback.on_train_batch_end(trainer, module, None, None, 0)
    callback.received = signal.SIGTERM
    with pytest.raises(SIGTERMException) as raised:
        callback.on_train_batch_end(trainer, module, None, None, 0)
    callback.on_exception(trainer, module, raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("connector", [None, SimpleNamespace(log_metrics=print)])
def test_without_lightnings_connector_no_row_is_logged_early(connector: Any) -> None:
    trainer: Any = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=object()), _logger_connector=connector)
    log_row_of_step(trainer)
    log_row_of_epoch(trainer)
