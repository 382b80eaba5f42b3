"""Build an existing run from its checkpoint, to test it or to predict."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from omegaconf import DictConfig, open_dict

from src.config.checks import checked
from src.runs.folder import RunFolder, run_folder_of
from src.runs.formats import explaining_age
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from src.runs.build import Run


@dataclass(frozen=True, kw_only=True)
class SavedRunOptions:
    """Options that name a run.

    Attributes:
        ckpt: its checkpoint, or its folder, which means its best checkpoint.
        trust: prefixes of the modules outside this project whose classes it may name.
    """

    ckpt: Annotated[str, "<run folder or checkpoint>"]
    trust: list[str] = field(default_factory=list)


def saved_run(options: SavedRunOptions, overrides: list[str], purpose: str) -> tuple[DictConfig, Path]:
    """Return the configuration, changed by ``overrides``, and the checkpoint that a command line asks for.

    Results go to a new folder ``<run folder>/<purpose>/<time>-<checkpoint>`` unless ``run_dir`` is given.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest key, and for the folder of a training.
        ValueError: if there is no such checkpoint.
    """
    from src.config.saved import trusted_config
    from src.runs.checkpoints import find_checkpoint, read_checkpoint

    path = find_checkpoint(options.ckpt, "best")
    saved = read_checkpoint(path)["config"]
    # There are no curves to log; `logger=wandb` selects a logger again.
    saved["logger"] = None
    saved["run_dir"] = str(run_folder_of(path) / purpose / datetime.now().strftime(f"%Y-%m-%d_%H-%M-%S-{path.stem}"))
    config = trusted_config(saved, overrides, options.trust)
    if config.run_dir:
        check_no_training("run_dir", config.run_dir)
    # After the overrides, because `trainer=gpu` and `callbacks=guard` are written for training. Nothing is trained, and
    # the checkpoints of the run must not be overwritten.
    with open_dict(config):
        config.trainer.enable_checkpointing = False
        config.callbacks = {name: node for name, node in config.callbacks.items() if not _writes_checkpoints(node)}
    return config, path


def check_no_training(key: str, folder: str) -> None:
    """Check that results, written to the folder that the argument ``key`` names, replace no files of a training.

    Raises:
        ConfigError: if a training wrote checkpoints there.
    """
    if RunFolder(folder).has_checkpoint():
        raise ConfigError(
            f"expected a folder for the results alone, got {key}={folder}, whose run they would replace; choose another"
        )


def _writes_checkpoints(node: DictConfig | None) -> bool:
    """Whether a callback is one that Lightning refuses to take without checkpointing, whatever its name and class."""
    from hydra.errors import InstantiationException
    from hydra.utils import get_object
    from pytorch_lightning.callbacks import Checkpoint

    if not node:
        return False
    with suppress(ImportError, AttributeError, ValueError, InstantiationException):  # `build` refuses what is not there
        kind = get_object(node["_target_"])
        return isinstance(kind, type) and issubclass(kind, Checkpoint)
    return False


def rebuild(config: DictConfig, checkpoint: Path) -> Run:
    """Build the run, with the checkpoint's state of the data, and check that both fit; the weights are not loaded yet.

    Raises:
        ValueError: for a configuration or checkpoint that cannot work.
    """
    from src.runs.checkpoints import check_architecture, read_checkpoint, restore_data

    content = read_checkpoint(checkpoint)
    with explaining_age(content, checkpoint):
        checked(config)
    from src.runs.build import build

    run = build(config)
    check_architecture(content, run.task, config)
    restore_data(content, run.datamodule)
    run.check_data()
    return run
