"""What a training has measured stays its own when a checkpoint is tested."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn


class OfTraining(Callback):
    """A callback whose state in a checkpoint continues a training, and is not loaded to test that checkpoint.

    Lightning loads it in both cases. A test of the best checkpoint would replace what the whole training has measured
    by what it had measured until then, and the evaluation of a checkpoint would report the training's costs as its own.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remove the state from the checkpoint unless it is loaded to train."""
        if trainer.state.fn != TrainerFn.FITTING:
            checkpoint.get("callbacks", {}).pop(self.state_key, None)
