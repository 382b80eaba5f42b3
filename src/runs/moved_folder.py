"""Run folders that are moved or copied."""

from __future__ import annotations

import os
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class MovedFolder(pl.Callback):
    """Tells `ModelCheckpoint` where its files are now, when a run goes on in another folder than it began in.

    Lightning would forget the best score then, and the next checkpoint, however bad, would replace the best one. A file
    that did not move along is used where it was.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Change the states that the callbacks are about to load."""
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks:
            key = callback.state_key
            if isinstance(callback, ModelCheckpoint) and callback.dirpath and key in states:
                states[key] = _moved(states[key], str(callback.dirpath))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    def now(path: str) -> str:
        candidate = os.path.join(folder, os.path.basename(path))
        return candidate if os.path.dirname(path) == state["dirpath"] and os.path.isfile(candidate) else path

    paths = {name: now(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
    best = {now(path): score for path, score in state["best_k_models"].items()}
    return {**state, **paths, "best_k_models": best, "dirpath": folder}
