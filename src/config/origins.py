"""Which file of an experiment sets a key that the command line does not name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR, choices_of


def origin(config: DictConfig, key: str) -> str:
    """Return " (set by configs/<file>)" if the experiment, its scale or its network's own file sets a key, else ""."""
    choices = config.get("choices") or {}
    experiment, scale = choices.get("experiment", config.get("experiment")), config.get("scale")
    # A saved configuration may come from a stranger: no other names become paths.
    if experiment not in choices_of("experiment") or scale not in choices_of("scale"):
        return ""
    own = CONFIG_DIR / "training" / str(config.experiment) / scale / f"{choices.get('model')}.yaml"
    files = [*_files(CONFIG_DIR / "experiment" / f"{experiment}.yaml", scale), own]
    setting = [file for file in files if file.is_file() and _sets(OmegaConf.load(file), key)]
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


def _sets(content: Any, key: str) -> bool:
    node = content
    for name in key.split("."):
        if not isinstance(node, DictConfig) or name not in node:
            return False
        node = node._get_node(name)
    return True
