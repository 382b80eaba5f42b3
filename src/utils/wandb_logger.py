"""Weights & Biases with or without an account."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import WandbLogger

DEFAULT_SERVER = "https://api.wandb.ai"


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


def wandb_logger(run_dir: str, **settings: Any) -> WandbLogger:
    """Return the W&B logger of the run in ``run_dir``, which names the W&B run: a resumed run goes on in the same one.

    Inside a W&B sweep the agent names the run (WANDB_RUN_ID), and that name stays.

    Args:
        run_dir: the run folder; W&B keeps its files in ``<run_dir>/wandb``.
        settings: further arguments of WandbLogger, such as project, group, tags.
    """
    name = Path(run_dir).name
    run_id = os.environ.get("WANDB_RUN_ID", name)
    # The run prints its own table at the end; W&B would add forty lines of sparklines.
    quiet = wandb.Settings(quiet=True)
    return WandbLogger(name=name, id=run_id, save_dir=run_dir, mode=wandb_mode(), settings=quiet, **settings)
