"""A run that exists, built again from its checkpoint to be tested or to predict."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from src.config.checks import check_config
from src.config.combinations import check_combinations
from src.config.targets import check_targets
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from src.runs.build import Run

# Nothing is trained: no checkpoint is saved, and those of the run must not be touched.
TRAINING_CALLBACKS = ("best", "last", "interrupt")


def saved_run(arguments: list[str], purpose: str) -> tuple[DictConfig, Path]:
    """Return the configuration and the checkpoint that a command line asks for.

    Args:
        arguments: ``ckpt=<run folder or checkpoint>`` once, the others change the configuration of that run. A run
            folder means its best checkpoint. ``trust=<module prefix>`` lets it name classes of other modules too.
        purpose: results go to a new folder ``<run folder>/<purpose>/<time>-<checkpoint>`` unless ``run_dir`` is given.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest key.
        ValueError: if there is no such checkpoint.
    """
    from src.config.saved import trusted_config
    from src.runs.checkpoints import find_checkpoint, read_checkpoint, run_folder_of

    path = find_checkpoint(single_argument(arguments, "ckpt", "<run folder or checkpoint>"), "best")
    saved = read_checkpoint(path)["config"]
    # There is no curve to log; `logger=wandb` brings a logger back.
    saved["logger"] = None
    saved["run_dir"] = str(run_folder_of(path) / purpose / datetime.now().strftime(f"%Y-%m-%d_%H-%M-%S-{path.stem}"))
    config = trusted_config(saved, [a for a in arguments if not a.startswith("ckpt=")])
    # After the overrides: `trainer=gpu` and `callbacks=guard` are a training's.
    with open_dict(config):
        config.trainer.enable_checkpointing = False
        config.callbacks = {name: c for name, c in config.callbacks.items() if name not in TRAINING_CALLBACKS}
    return config, path


def single_argument(arguments: list[str], name: str, meaning: str) -> str:
    """Return the value of ``name=value``.

    Raises:
        ConfigError: unless the arguments have it exactly once.
    """
    values = [a.partition("=")[2] for a in arguments if a.startswith(f"{name}=")]
    if len(values) != 1:
        raise ConfigError(f"expected one {name}={meaning}, got {len(values)}")
    return values[0]


def rebuild(config: DictConfig, checkpoint: Path) -> Run:
    """Build what ``config`` describes, and check that the checkpoint and the data fit; the weights are not loaded yet.

    Raises:
        ValueError: for a configuration or checkpoint that cannot work.
    """
    check_config(config)
    check_targets(config)
    check_combinations(config)
    from src.runs.build import build
    from src.runs.checkpoints import check_architecture, read_checkpoint

    run = build(config)
    check_architecture(read_checkpoint(checkpoint), run.task, config.model["_target_"])
    run.check_data()
    return run
