"""config.yaml: the configuration of a run, with every reference replaced by its value."""

import json
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from src.config.checks import plain
from src.runs.folder import RunFolder
from src.runs.formats import FORMAT, FORMAT_KEY, MAX_DEPTH, TOO_DEEP, check_depth, check_format
from src.utils.files import write_text
from src.utils.reading import reading


def write_config(config: DictConfig) -> None:
    """Write ``config.yaml`` into ``config.run_dir``."""
    text = f"{FORMAT_KEY}: {FORMAT}\n{OmegaConf.to_yaml(config, resolve=True)}"
    write_text(RunFolder(config.run_dir).config, text)


def load_config(path: Path) -> DictConfig:
    """Read a config.yaml of this machine.

    A file of format 0 has references; resolving them may call resolvers, which see the environment.

    Raises:
        FileError: for a damaged file, or one of a later version.
    """
    with reading(path, "the configuration of a run"):
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise ValueError("no mapping")
        check_format(plain(config, resolve=False), path)
        if FORMAT_KEY in config:
            del config[FORMAT_KEY]
        return config


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.yaml, possibly from someone else, into plain containers; references of format 0 stay unresolved.

    Raises:
        FileError: for a damaged file, and for content that no run writes.
    """
    with reading(path, "the configuration of a run"):
        # Aliases may multiply without limit, and deep nesting would keep OmegaConf busy without limit.
        depth = 0
        for event in yaml.parse(path.read_text(encoding="utf-8")):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("expected no aliases")
            if depth > MAX_DEPTH:
                raise ValueError(TOO_DEEP)
        config = plain(load_config(path), resolve=False)
        check_depth(config)
        # As summary.json would hold it.
        return json.loads(json.dumps(config, default=str))
