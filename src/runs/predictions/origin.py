"""What predictions depend on besides their own images: those of one folder have it in common."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.checks import plain
from src.runs.checkpoints import read_checkpoint
from src.runs.predictions.sources import base_folder
from src.sweeps.identity import digest

# Arguments of a datamodule that say where its files are and how fast they are read.
WITHOUT_INFLUENCE = ("batch_size", "cache_dir", "data_dir", "download", "pin_memory", "predict_dir")


def origin_of(config: DictConfig, checkpoint: Path, given: Path | None) -> dict[str, Any]:
    """Return the origin of predictions, as JSON keeps it.

    Args:
        config: of the run that predicts.
        checkpoint: with its weights.
        given: the file or folder that is predicted; None for the datamodule's own scans, and for samples.
    """
    datamodule: dict[str, Any] = plain(config.datamodule, resolve=True)
    scans = datamodule["predict_dir"] or datamodule.get("data_dir") if "predict_dir" in datamodule else given
    settings = {k: v for k, v in datamodule.items() if k not in WITHOUT_INFLUENCE and not k.endswith("_workers")}
    return {
        "checkpoint": str(checkpoint.resolve()),
        "steps": read_checkpoint(checkpoint)["global_step"],
        **{key: value for key, value in config.task.items() if key in ("overlap", "blending")},
        "input": None if scans is None else str(base_folder(Path(scans)).resolve()),
        "datamodule": digest(settings),
        "precision": config.trainer.get("precision"),
    }
