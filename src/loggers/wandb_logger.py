"""Weights & Biases with or without an account."""

import hashlib
import netrc
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from requests.utils import get_netrc_auth

from src.loggers.run_logger import final_numbers
from src.utils.files import plain_name, shortened

DEFAULT_SERVER = "https://api.wandb.ai"
# In characters. W&B allows 128 for names, including those of artifacts ("run-<id>-<table>"), and 64 for tags.
MAX_ID, MAX_NAME, MAX_TAG = 96, 128, 64


def has_api_key() -> bool:
    """Return whether a W&B key is configured: WANDB_API_KEY, or the netrc entry that ``wandb login`` writes.

    Raises:
        ValueError: if the netrc file cannot be parsed.
    """
    server = os.environ.get("WANDB_BASE_URL", DEFAULT_SERVER)
    try:
        return bool(os.environ.get("WANDB_API_KEY") or get_netrc_auth(server, raise_errors=True))
    except netrc.NetrcParseError as error:
        raise ValueError(f"expected a readable netrc file with the W&B key, got {error}") from error


def wandb_mode() -> str | None:
    """Return WANDB_MODE if it is set, "offline" if no key is configured, else None, which leaves it to wandb.

    Without a key and a mode, wandb would stop the run and ask for an account.
    """
    return os.environ.get("WANDB_MODE") or (None if has_api_key() else "offline")


class WandbRun(WandbLogger):
    """Lightning's logger, with the training step as W&B's step.

    W&B's own counter starts again in every offline process. With the training step, the files of a run that was
    resumed form one history.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._step = 0

    @rank_zero_only
    def describe(self, config: dict[str, Any], tags: list[str]) -> None:
        """Log the configuration and the tags."""
        self.log_hyperparams(config)
        legal = [shortened(tag, MAX_TAG) for tag in tags if tag]
        self.experiment.tags = tuple(dict.fromkeys([*(self.experiment.tags or ()), *legal]))

    def go_on_from(self, step: int) -> None:
        """Set the step that pictures belong to."""
        self._step = step

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row; pictures and tables come without a step and belong to the latest one."""
        self._step = max(self._step, step or 0)
        self.experiment.log({**metrics, "trainer/global_step": self._step}, step=self._step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End a run that fails; otherwise the next job of a multirun would be logged into it."""
        super().finalize(status)
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)

    @rank_zero_only
    def finish(self, summary: dict[str, Any]) -> None:
        """Add the final numbers to W&B's summary and end the run; the next job of a multirun starts its own."""
        self.experiment.summary.update(final_numbers(summary))
        self.experiment.finish()


def run_id(run_dir: str) -> str:
    """Return the id of the W&B run that belongs to a run folder.

    In a W&B sweep the agent sets it (WANDB_RUN_ID). A resumed run keeps the id in the names of its W&B folders, also
    after its folder was moved. Otherwise it is the folder's name with a digest of its place: folders of one name in two
    places are two runs.
    """
    if os.environ.get("WANDB_RUN_ID"):
        return os.environ["WANDB_RUN_ID"]
    names = sorted(path.name.removeprefix("offline-") for path in Path(run_dir).glob("wandb/*run-*"))
    earlier = [match[1] for name in names if (match := re.fullmatch(r"run-\d{8}_\d{6}-(.+)", name))]
    if earlier:
        return earlier[-1]
    place = Path(run_dir).resolve()
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return f"{plain_name(place.name or 'run', MAX_ID - 9)}-{digest}"


def wandb_logger(run_dir: str, **settings: Any) -> WandbRun:
    """Return the W&B logger of the run in ``run_dir``; a resumed run continues the same W&B run.

    W&B keeps its files in ``<run_dir>/wandb``. Further ``settings`` of WandbLogger are project, group, tags.
    """
    # Without `quiet`, W&B adds forty lines of sparklines to the table that the run prints itself.
    quiet = wandb.Settings(quiet=True)
    name = shortened(Path(run_dir).resolve().name or "run", MAX_NAME)
    return WandbRun(name=name, id=run_id(run_dir), save_dir=run_dir, mode=wandb_mode(), settings=quiet, **settings)
