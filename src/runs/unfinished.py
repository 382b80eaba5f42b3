"""Finding the run that ``resume=auto`` means."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.config.composition import compose_config
from src.config.saved import with_overrides
from src.utils.errors import ConfigError
from src.utils.reading import FileError, reading

OUTPUTS = Path("outputs")


def newest_unfinished(overrides: list[str], outputs: Path = OUTPUTS) -> Path:
    """Return the folder of the newest run that has a checkpoint, no result after it, and every value of ``overrides``.

    Args:
        overrides: the other arguments of the command line; they choose among the runs and change none.
        outputs: the folder of all runs, ``<outputs>/<experiment>/<run>``.

    Raises:
        ConfigError: if there is none, or an argument is wrong.
    """
    compose_config(overrides)  # a misspelt argument is no reason to find nothing
    checkpoints = sorted(outputs.glob("*/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    unfinished = [path.parents[1] for path in checkpoints if not _is_finished(path.parents[1])]
    for folder in unfinished:
        if _has_values(folder, overrides):
            return folder
    wanted = f" with {' '.join(overrides)}" if overrides else ""
    raise ConfigError(
        f"expected an unfinished run{wanted} under {outputs}/ for resume=auto, got "
        f"{len(unfinished)} unfinished of {len(checkpoints)} runs with a checkpoint"
        + "".join(f"\n  unfinished: {folder}" for folder in unfinished[:5])
    )


def _is_finished(folder: Path) -> bool:
    """Whether the run's summary.json is the result of the training that its config.yaml asks for.

    A run that is being prolonged asks for a longer one. (Times of files say nothing: copies and clocks change them.)
    """
    with suppress(FileError), reading(folder, "a run with its result"):
        reached = json.loads((folder / "summary.json").read_text())["config"]["trainer"]
        asked = OmegaConf.load(folder / "config.yaml")["trainer"]  # type: ignore[index]
        return reached == OmegaConf.to_container(asked, resolve=True)
    return False


def _has_values(folder: Path, overrides: list[str]) -> bool:
    path = folder / "config.yaml"
    if not path.exists():
        return False
    with reading(path, "the configuration of a run"):
        saved = OmegaConf.load(path)
        if not isinstance(saved, DictConfig):
            raise ValueError("no mapping")
    named = dict(override.split("=", 1) for override in overrides if override.startswith(("experiment=", "scale=")))
    if any(OmegaConf.select(saved, key) != value for key, value in named.items()):
        return False
    others = [override for override in overrides if override.partition("=")[0] not in named]
    try:
        return with_overrides(OmegaConf.to_container(saved), others) == saved  # type: ignore[arg-type]
    except ConfigError:  # a run of an experiment that has no such key
        return False
