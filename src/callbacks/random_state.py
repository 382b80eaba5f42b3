"""Random numbers that go on where an interrupted run stopped."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch


class RandomState(pl.Callback):
    """Keeps the state of torch's generators in the checkpoint.

    A run that is resumed from the end of an epoch then shuffles and augments as the uninterrupted run does, and ends
    with the same weights.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the CPU's and the current GPU's generator."""
        state: dict[str, Any] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the network is set up, which may draw numbers too."""
        self._loaded = state_dict

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the states of the checkpoint that training goes on from, before the first data loader asks for a seed."""
        if self._loaded is None:
            return
        # The processes of a distributed run share the checkpoint of the first one, and must not share its numbers.
        if trainer.world_size == 1:
            torch.set_rng_state(self._loaded["cpu"].cpu())
            if torch.cuda.is_available() and "cuda" in self._loaded:
                torch.cuda.set_rng_state(self._loaded["cuda"].cpu())
        self._loaded = None
