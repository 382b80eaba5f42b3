"""Finding the run that ``resume=auto`` means."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.composition import compose_config
from src.config.moved import modernised
from src.config.saved import with_overrides
from src.runs.config_file import load_config
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.utils.errors import ConfigError
from src.utils.reading import FileError

OUTPUTS = Path("outputs")
# Classes of callbacks that end a training.
ENDING = (".EarlyStopping", ".TimeBudget")


def newest_unfinished(overrides: list[str], outputs: Path = OUTPUTS) -> Path:
    """Return the newest run folder ``<outputs>/<experiment>/<run>`` that has a checkpoint and no result after it.

    The ``overrides``, the other arguments of the command line, choose among the runs and change none.

    Raises:
        ConfigError: if there is none, or an argument is wrong.
    """
    compose_config(overrides)  # a misspelt argument must not lead to "nothing found"
    runs = [run for folder in outputs.glob("*/*") if (run := RunFolder(folder)).checkpoint().is_file()]
    runs.sort(key=lambda run: run.checkpoint().stat().st_mtime, reverse=True)
    unfinished = [run for run in runs if not _is_finished(run)]
    for run in unfinished:
        if _has_values(run, overrides):
            return run.path
    wanted = f" with {' '.join(overrides)}" if overrides else ""
    raise ConfigError(
        f"expected an unfinished run{wanted} under {outputs}/ for resume=auto, got "
        f"{len(runs)} runs with a checkpoint, of which {len(unfinished)} are unfinished"
        + "".join(f"\n  unfinished: {run.path}" for run in unfinished[:5])
    )


def _is_finished(run: RunFolder) -> bool:
    """Whether the run's summary.json is the result of the training that its config.yaml asks for.

    If the run is being prolonged, it asks for a longer training. (File times tell nothing: copies change them.)
    """
    with suppress(FileError):
        reached = read_summary(run.summary, ["config"])["config"]
        asked: Any = OmegaConf.to_container(load_config(run.config), resolve=True)
        return _ends(reached) == _ends(asked)
    return False


def _ends(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide when a training ends: those of the trainer and of callbacks that end it."""
    callbacks = config.get("callbacks") or {}
    ending = {name: node for name, node in callbacks.items() if str((node or {}).get("_target_")).endswith(ENDING)}
    return {"trainer": config.get("trainer"), **ending}


def _has_values(run: RunFolder, overrides: list[str]) -> bool:
    if not run.config.exists():
        return False
    saved: Any = modernised(OmegaConf.to_container(load_config(run.config), resolve=True))
    # Of a run of an experiment that has no such key, or nothing to which a choice refers.
    with suppress(ConfigError, OmegaConfBaseException):
        return OmegaConf.to_container(with_overrides(saved, overrides), resolve=True) == saved
    return False
