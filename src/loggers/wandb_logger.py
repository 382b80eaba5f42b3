"""Weights & Biases with or without an account."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from src.loggers.run_logger import final_numbers
from src.utils.files import plain_name, shortened

DEFAULT_SERVER = "https://api.wandb.ai"
# In characters. W&B takes 128 for names, those of artifacts ("run-<id>-<table>") included, and 64 for tags.
MAX_ID, MAX_NAME, MAX_TAG = 96, 128, 64


def has_api_key() -> bool:
    """Whether a W&B key is configured: WANDB_API_KEY, or the entry that ``wandb login`` writes into the netrc file.

    Raises:
        ValueError: if the netrc file cannot be parsed.
    """
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", DEFAULT_SERVER)).netloc
    # wandb's own order: NETRC, then the names that Unix and Windows use.
    candidates = [Path(os.environ["NETRC"])] if os.environ.get("NETRC") else []
    candidates += [Path.home() / ".netrc", Path.home() / "_netrc"]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        return False
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except netrc.NetrcParseError as error:
        raise ValueError(f"expected a readable netrc file to look for the W&B key in, got {error}") from error


def wandb_mode() -> str | None:
    """Return WANDB_MODE where it is set, "offline" where no key is configured, else None: wandb's own settings.

    Without a key and a mode wandb would stop the run and ask for an account.
    """
    return os.environ.get("WANDB_MODE") or (None if has_api_key() else "offline")


class WandbRun(WandbLogger):
    """Lightning's logger, with W&B's step being the step of the training.

    W&B's own counter begins anew in a process that goes on offline; with the training's steps the files of all
    processes of a run are one history.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._step = 0

    @rank_zero_only
    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Hand on configuration and tags."""
        self.log_hyperparams(config)
        legal = [shortened(tag, MAX_TAG) for tag in tags if tag]
        self.experiment.tags = tuple(dict.fromkeys([*(self.experiment.tags or ()), *legal]))

    def go_on_from(self, step: int) -> None:
        """Set the step that pictures belong to from now on."""
        self._step = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row; without a step, as pictures and tables come, it belongs to the latest one."""
        self._step = max(self._step, step or 0)
        self.experiment.log({**metrics, "trainer/global_step": self._step}, step=self._step)

    @rank_zero_only
    def finish(self, summary: dict[str, Any]) -> None:
        """Add the final numbers to W&B's summary and end the run: the next job of a multirun has its own."""
        self.experiment.summary.update(final_numbers(summary))
        self.experiment.finish()


def run_id(run_dir: str) -> str:
    """Return the id of the W&B run that belongs to a run folder.

    Inside a W&B sweep the agent has given it (WANDB_RUN_ID); a run that goes on has the one of its W&B folders; else it
    is the folder's name, with a digest of it where W&B would not take it as it is.
    """
    if os.environ.get("WANDB_RUN_ID"):
        return os.environ["WANDB_RUN_ID"]
    names = sorted(path.name.removeprefix("offline-") for path in Path(run_dir).glob("wandb/*run-*"))
    earlier = [match[1] for name in names if (match := re.fullmatch(r"run-\d{8}_\d{6}-(.+)", name))]
    return earlier[-1] if earlier else plain_name(_run_name(run_dir), MAX_ID)


def _run_name(run_dir: str) -> str:
    return Path(run_dir).resolve().name or "run"


def wandb_logger(run_dir: str, **settings: Any) -> WandbRun:
    """Return the W&B logger of the run in ``run_dir``, which names the W&B run: a resumed run goes on in the same one.

    Args:
        run_dir: the run folder; W&B keeps its files in ``<run_dir>/wandb``.
        settings: further arguments of WandbLogger, such as project, group, tags.
    """
    # The run prints its own table at the end; W&B would add forty lines of sparklines.
    quiet = wandb.Settings(quiet=True)
    name, mode = shortened(_run_name(run_dir), MAX_NAME), wandb_mode()
    return WandbRun(name=name, id=run_id(run_dir), save_dir=run_dir, mode=mode, settings=quiet, **settings)
