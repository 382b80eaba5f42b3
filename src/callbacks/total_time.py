"""How long a run takes, its interruptions left out."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class TotalTime(pl.Callback):
    """Counts the wall time of a run, that of the processes that it goes on from included."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.earlier_s = 0.0
        self._loaded_s = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds until now."""
        return {"seconds": self.earlier_s + time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the seconds until training goes on: a test loads the state of its own run's checkpoint too."""
        self._loaded_s = state_dict["seconds"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count on."""
        self.earlier_s = self._loaded_s
