"""The key that a user probably meant."""

import difflib
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import did_you_mean
from src.utils.nested import dotted


def config_keys(config: DictConfig) -> list[str]:
    """Return every key of the configuration, dotted; an interpolation need not resolve to be one."""
    return [key for key, _ in dotted(OmegaConf.to_container(config))]


def explain_unknown_key(key: str, config: DictConfig, groups: Iterable[str] = ()) -> str:
    """Return the message for a ``key`` that the configuration does not have."""
    parent = key.rpartition(".")[0]
    scope = OmegaConf.select(config, parent) if parent else None
    valid = [*config_keys(config), *groups]
    if isinstance(scope, DictConfig):
        siblings = [f"{parent}.{name}" for name in map(str, scope)]
        if difflib.get_close_matches(key, siblings, n=1, cutoff=0.6):
            valid = siblings
    elif "." not in key:
        # A word without a dot most likely means a top-level key or a group.
        top = [*map(str, config), *groups]
        valid = top if difflib.get_close_matches(key, top, n=1, cutoff=0.6) else valid
    return f"expected a key of the configuration, got {key!r}{did_you_mean(key, valid)}"
