"""From a configuration to the objects of a run."""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint

from src.config.checks import compile_mode
from src.invertible.compilation import compile_subnets
from src.loggers.run_logger import RunLogger
from src.loggers.shielded import shielded
from src.runs.csv_logger import CsvLogger
from src.runs.last_checkpoint import LastCheckpoint
from src.runs.monitor import STEP, check_monitors
from src.runs.quiet import quiet_libraries
from src.runs.run_state import RunState
from src.runs.sharding import check_sharding
from src.tasks.base import Task
from src.tasks.metrics import CALLBACK_METRICS, Metric
from src.tasks.updates import check_updates


@dataclass
class Run:
    """The objects of a run, with ``callbacks`` by their names in the configuration."""

    config: DictConfig
    datamodule: pl.LightningDataModule
    task: Task
    trainer: pl.Trainer
    callbacks: dict[str, pl.Callback]
    state: RunState

    def callback(self, kind: type) -> Any:
        """Return the callback of a class, or None if the run has none."""
        return next((c for c in self.trainer.callbacks if isinstance(c, kind)), None)  # type: ignore[attr-defined]

    def check_data(self) -> None:
        """Check that network and data fit, on the training device because a large sample takes a long time on a CPU.

        Then set the precision of the network. Lightning would do so only after it has loaded a checkpoint, which would
        round weights in double precision to single precision.

        Raises:
            ValueError: if they do not fit, or no metric has the name that something monitors.
        """
        check_updates(self.task)
        check_sharding(self.trainer.strategy, self.task.net)
        self.task.to(self.trainer.strategy.root_device)
        self.task.check_data(self.datamodule)
        if self.task.metrics:
            check_monitors(self.config, self.metric_descriptions(), self.task.metrics)
        if self.trainer.precision == "64-true":
            self.task.double()

    def metric_descriptions(self) -> list[Metric]:
        """Return what is known of the metrics of task and callbacks; callbacks of others may have ``metrics`` too."""
        others = [metric for callback in self.callbacks.values() for metric in getattr(callback, "metrics", ())]
        return [*self.task.metrics, *CALLBACK_METRICS, *others]

    def loggers(self) -> list[RunLogger]:
        """Return this project's own loggers."""
        return [logger for logger in self.trainer.loggers if isinstance(logger, RunLogger)]

    def best_checkpoint(self) -> str | None:
        """Return the best checkpoint by the monitored metric, else the latest one, else None."""
        saved = [c.best_model_path for c in self.callbacks.values() if isinstance(c, ModelCheckpoint)]
        last = self.callback(LastCheckpoint)
        saved += [str(last.path)] if last is not None and last.path.exists() else []
        # The first process writes them, and the others may see its files late.
        return self.trainer.strategy.broadcast(next((path for path in saved if path), None))


def build(config: DictConfig) -> Run:
    """Build the run of a configuration that passed `src.config.checks.checked`; nothing is generated or trained.

    Raises:
        ValueError: for a value that a constructor refuses.
    """
    quiet_libraries()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    # Filling new tensors with NaN helps to find reads of uninitialised memory, but costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    datamodule = instantiate(config.datamodule)
    net = instantiate(config.model)
    if mode := compile_mode(config):
        compile_subnets(net, mode)
    task = instantiate(config.task, _partial_=True)(net=net)
    callbacks = {name: _callback(node) for name, node in (config.get("callbacks") or {}).items() if node}
    loggers = [instantiate(node) for node in (config.get("logger") or {}).values()]
    # All but the project's own file are trackers, whose failure is only a warning.
    loggers = [logger if isinstance(logger, CsvLogger) else shielded(logger) for logger in loggers]
    if not loggers:
        # It refuses to run without a logger.
        callbacks = {name: c for name, c in callbacks.items() if not isinstance(c, LearningRateMonitor)}
    state = RunState(config)
    trainer = instantiate(config.trainer, callbacks=[*callbacks.values(), state], logger=loggers or False)
    return Run(config, datamodule, task, trainer, callbacks, state)


def _callback(node: DictConfig) -> pl.Callback:
    # The last weights count as the best ones, also those of an epoch without a validation or of a part of an epoch.
    is_latest = str(node.get("_target_")).endswith(".ModelCheckpoint") and node.get("monitor") == STEP
    return instantiate(node, **({"save_on_train_epoch_end": True} if is_latest else {}))
