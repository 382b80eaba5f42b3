"""Random numbers that continue where an interrupted run stopped."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

KEY = "random_state"


class RandomState(Callback):
    """Keeps the states of torch's, numpy's and Python's generators in the checkpoint, for every process.

    A resumed run then draws the same numbers as an uninterrupted one, and ends with the same weights. The order and
    the augmentation of the training data need no state: they are functions of the seed and the epoch.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add ``checkpoint["random_state"]``, a list with the states of each process."""
        states: list[Any] = [generator_states()]
        if trainer.world_size > 1:
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, generator_states())
        checkpoint[KEY] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until the network is set up, because that may draw numbers too."""
        self._loaded = checkpoint.get(KEY)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the states of the checkpoint from which training resumes.

        A process that the interrupted run did not have starts from its own seed.
        """
        if self._loaded is not None and trainer.global_rank < len(self._loaded):
            set_generator_states(self._loaded[trainer.global_rank])
        self._loaded = None


def generator_states() -> dict[str, Any]:
    """Return the states of this process's generators, as tensors and plain containers."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002, the generator of libraries
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: dict[str, Any]) -> None:
    """Set the states that `generator_states` returned, of CUDA only where there is a GPU."""
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())
