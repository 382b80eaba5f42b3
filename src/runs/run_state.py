"""Everything outside the training itself that a run keeps across the processes that continue it."""

import os
import time
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.trainer.states import TrainerFn

from src.config.checks import model_name, plain
from src.loggers.run_logger import RunLogger
from src.runs.config_file import write_config
from src.runs.formats import FORMAT, FORMAT_KEY
from src.runs.provenance import ROOT, git_commit


class RunState(Callback):
    """Keeps configuration, latest metrics and wall time in each checkpoint; writes config.yaml and tells the loggers.

    A checkpoint keeps the references inside the configuration, so that an override of ``seed`` or ``network`` still
    reaches what refers to it; the file and the loggers get values.

    Lightning itself starts without metrics: a run resumed for its test alone would know nothing of its training. Its
    Timer counts the training without the data generation, and takes over the time of a checkpoint loaded for a test.

    The configuration has its ``run_dir`` set.

    Attributes:
        earlier_s: seconds that the processes before this one ran.
        commits: of the code of those processes and, last, of this one when it began, see `git_commit`.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.earlier_s = 0.0
        self.commits = [git_commit(ROOT)]
        self._started = time.perf_counter()
        self._earlier_metrics: dict[str, float] = {}
        self._described = False

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """Return the latest value of every metric, those of earlier processes included."""
        return {**self._earlier_metrics, **{name: float(value) for name, value in trainer.callback_metrics.items()}}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration and tell the loggers: the data exist by now, and the run begins."""
        if not trainer.is_global_zero or self._described:
            return
        self._described = True  # the test of the same run has the same configuration
        write_config(self.config)
        tags = [self.config.experiment, self.config.scale, model_name(self.config), self.config.backprop]
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.describe(plain(self.config, resolve=True), tags)
            else:
                logger.log_hyperparams(plain(self.config, resolve=True))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a training that early stopping has ended before it was resumed: Lightning saves no such flag."""
        reasons = [callback.stopping_reason for callback in trainer.early_stopping_callbacks]
        if any(reason != EarlyStoppingReason.NOT_STOPPED for reason in reasons):
            trainer.should_stop = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add ``format``, ``config`` (plain containers), ``metrics``, ``total_time_s`` and ``git_commits``."""
        checkpoint |= {
            FORMAT_KEY: FORMAT,
            "config": plain(self.config, resolve=False),
            "metrics": self.metrics(trainer),
            "total_time_s": self.earlier_s + time.perf_counter() - self._started,
            "git_commits": self.commits,
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue from the checkpoint of a training, which a test does not; find its best checkpoint again.

        If the run folder was moved or copied, `ModelCheckpoint` would forget the best score, and the next checkpoint,
        however bad, would replace the best one. A file that was not moved with the folder is used where it is.
        """
        states = checkpoint.get("callbacks", {})
        # Not where the learning rate finder returns to the start of this very process.
        if trainer.state.fn == TrainerFn.FITTING and trainer.ckpt_path is not None:
            self._earlier_metrics = checkpoint.get("metrics", {})
            *_, own = self.commits
            self.commits = [*(commit for commit in checkpoint.get("git_commits", []) if commit != own), own]
            # In a checkpoint of format 0 a callback of its own kept the time.
            self.earlier_s = checkpoint.get("total_time_s", states.get("TotalTime", {}).get("seconds", 0.0))
        for callback in trainer.checkpoint_callbacks:
            key = callback.state_key
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and key in states:
                states[key] = _moved(states[key], str(callback.dirpath))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the state of a `ModelCheckpoint` with the paths of the files that now lie in ``folder``."""

    def now(path: str) -> str:
        candidate = os.path.join(folder, os.path.basename(path))
        return candidate if os.path.dirname(path) == state["dirpath"] and os.path.isfile(candidate) else path

    paths = {name: now(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {now(path): score for path, score in state["best_k_models"].items()}
    return {**state, **paths, "best_k_models": best, "dirpath": folder}
