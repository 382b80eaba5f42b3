"""Which file of an experiment sets a key that the command line does not name."""

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR, choices_of
from src.utils.nested import dotted


def origin(config: DictConfig, key: str) -> str:
    """Return " (set by configs/<file>)" if the experiment, its scale or its network's own file sets a key, else ""."""
    choices = config.get("choices") or {}
    experiment, scale = choices.get("experiment", config.get("experiment")), config.get("scale")
    # A saved configuration may come from a stranger: no other names become paths.
    if experiment not in choices_of("experiment") or scale not in choices_of("scale"):
        return ""
    own = CONFIG_DIR / "training" / str(config.experiment) / scale / f"{choices.get('model')}.yaml"
    files = [*_files(CONFIG_DIR / "experiment" / f"{experiment}.yaml", scale), own]
    setting = [file for file in files if file.is_file() and key in _keys(file)]
    return f" (set by configs/{setting[-1].relative_to(CONFIG_DIR).as_posix()})" if setting else ""


def _files(path: Path, scale: str) -> Iterator[Path]:
    """Yield the files that an experiment's file builds on, and itself, in the order in which they count."""
    for entry in OmegaConf.to_container(OmegaConf.load(path), resolve=False).get("defaults", []):  # type: ignore[union-attr]
        if entry == "_self_":
            yield path
        elif isinstance(entry, str):
            yield from _files(CONFIG_DIR / f"{entry.strip('/')}.yaml", scale)
        else:
            for group, choice in entry.items():
                if not group.startswith("override "):
                    yield path.parent / group / f"{str(choice).replace('${scale}', scale)}.yaml"


def _keys(file: Path) -> set[str]:
    """Return the keys that a file sets, and the sections that they are in."""
    return {key for key, _ in dotted(OmegaConf.to_container(OmegaConf.load(file), resolve=False))}
