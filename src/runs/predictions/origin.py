"""What predictions depend on besides their own images: those of one folder have it in common."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.checks import plain
from src.config.influence import WITHOUT_INFLUENCE
from src.runs.checkpoints import read_checkpoint
from src.runs.predictions.sources import base_folder
from src.utils.digest import digest

# Nothing is drawn at random here, so the number of loading workers has none either; the folders are the origin's input.
IGNORED = ("batch_size", "num_workers", "data_dir", "predict_dir", *WITHOUT_INFLUENCE)


def origin_of(config: DictConfig, checkpoint: Path, given: Path | None) -> dict[str, Any]:
    """Return the origin of predictions, as JSON keeps it.

    Args:
        config: of the run that predicts.
        checkpoint: with its weights.
        given: the file or folder that is predicted; None for the datamodule's own scans, and for samples.
    """
    datamodule: dict[str, Any] = plain(config.datamodule, resolve=True)
    scans = datamodule["predict_dir"] or datamodule.get("data_dir") if "predict_dir" in datamodule else given
    settings = {k: v for k, v in datamodule.items() if k not in IGNORED}
    return {
        "checkpoint": str(checkpoint.resolve()),
        "steps": read_checkpoint(checkpoint)["global_step"],
        **{key: value for key, value in config.task.items() if key in ("overlap", "blending")},
        "input": None if scans is None else str(base_folder(Path(scans)).resolve()),
        "datamodule": digest(settings),
        "precision": config.trainer.get("precision"),
    }
