"""Whose state a test of a checkpoint leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel

from src.runs.of_training import OfTraining


class Counts(OfTraining):
    epochs = 0

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1
        trainer.save_checkpoint(Path(trainer.default_root_dir) / f"{self.epochs}.ckpt")


def trainer(folder: Path, counts: Counts) -> pl.Trainer:
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        default_root_dir=folder, max_epochs=3, limit_train_batches=1, limit_val_batches=0, callbacks=[counts], **silent
    )


def test_a_test_of_an_earlier_checkpoint_changes_nothing_and_a_resumed_training_goes_on(tmp_path: Path) -> None:
    counts = Counts()
    first = trainer(tmp_path, counts)
    first.fit(BoringModel())
    for tested in (first, trainer(tmp_path, Counts())):
        before = counts.epochs if tested is first else 0
        tested.test(BoringModel(), ckpt_path=tmp_path / "1.ckpt", weights_only=True, verbose=False)
        (callback,) = (c for c in tested.callbacks if isinstance(c, Counts))
        assert callback.epochs == before
    resumed = Counts()
    trainer(tmp_path, resumed).fit(BoringModel(), ckpt_path=tmp_path / "1.ckpt", weights_only=True)
    assert resumed.epochs == 3
