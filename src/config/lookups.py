"""Values that choose an entry of a table in the configuration, such as ``${.levels.${.depth}}``."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.utils.errors import ConfigError, did_you_mean
from src.utils.nested import dotted

# ${<table>.${<key>}}, perhaps with more keys behind: both are dotted, and relative if they begin with dots.
LOOKUP = re.compile(r"\$\{(?P<table>[\w.]+)\.\$\{(?P<key>[\w.]+)\}[\w.]*\}")


def check_lookups(config: DictConfig) -> None:
    """Check that every value which chooses an entry of a table is one of its keys.

    Raises:
        ConfigError: naming the key of the value, and the entries.
    """
    for place, text in dotted(OmegaConf.to_container(config)):
        for lookup in LOOKUP.finditer(text) if isinstance(text, str) else ():
            key = _absolute(lookup["key"], place)
            _check(key, OmegaConf.select(config, key), OmegaConf.select(config, _absolute(lookup["table"], place)))


def _check(key: str, value: Any, table: Any) -> None:
    """Check one value; where there is no table, the interpolation's own message says so."""
    names = [str(name) for name in table] if isinstance(table, DictConfig) else [str(value)]
    if str(value) not in names:
        hint = did_you_mean(str(value), names, listed=False)
        raise ConfigError(f"expected {key} to be one of {', '.join(names)}, got {value!r}{hint}")


def _absolute(reference: str, place: str) -> str:
    """Return the dotted key that an interpolation at ``place`` means: one dot is its section, two the one around."""
    name = reference.lstrip(".")
    dots = len(reference) - len(name)
    return ".".join([*place.split(".")[:-dots], name]) if dots else name
