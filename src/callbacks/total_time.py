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

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds until now."""
        return {"seconds": self.earlier_s + time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.earlier_s = state_dict["seconds"]
