"""The configuration of an earlier run, with changes from the command line."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from src.config.composition import config_groups, config_keys, explain_unknown_key, parse_overrides
from src.config.group_choices import choose, experiment_of
from src.config.moved import modernised
from src.config.trusted import check_trusted, pinned, targets_in
from src.utils.errors import ConfigError


def with_overrides(saved: dict[str, Any], overrides: list[str]) -> DictConfig:
    """Return a saved configuration with the changes ``group=choice``, then ``key=value`` and ``+key=value``.

    A group's choice changes what differs from the run's own choice, see `choose`.

    Raises:
        ConfigError: for other overrides, naming the nearest key if there is one.
    """
    config = OmegaConf.create(saved)
    parsed = parse_overrides(overrides)
    groups = [o for o in parsed if o.key_or_group in config_groups() and not o.is_add()]
    for override in groups:
        _replace_group(config, override)
    for override in parsed:
        if override not in groups:
            _set_value(config, override)
    return config


def trusted_config(saved: dict[str, Any], overrides: list[str], trusted: Sequence[str] = ()) -> DictConfig:
    """Return `with_overrides` of a checkpoint's configuration, checked to name trusted classes only.

    The targets in ``overrides`` are trusted, and so are the module prefixes and whole names in ``trusted``.

    Raises:
        ConfigError: for other targets, and as `with_overrides` does.
    """
    config = pinned(with_overrides(modernised(saved), overrides))
    typed = [target for o in parse_overrides(overrides) for target in targets_in(o.value(), o.key_or_group)]
    check_trusted(config, [*trusted, *typed])
    return config


def _replace_group(config: DictConfig, override: Override) -> None:
    group, choice = override.key_or_group, str(override.input_line).partition("=")[2]
    if group not in ("experiment", "scale"):
        choose(config, group, choice)
        return
    # `resume=auto` takes those of the run, which it looks for.
    own = experiment_of(config) if group == "experiment" else config.scale
    if choice != own:
        raise ConfigError(f"expected the {group} of the saved run ({own}), got {override.input_line!r}")


def _set_value(config: DictConfig, override: Override) -> None:
    key = override.key_or_group
    if override.is_delete() or override.is_sweep_override():
        raise ConfigError(f"expected key=value for a saved run, got {override.input_line!r}")
    if not override.is_add() and key not in set(config_keys(config)):
        raise ConfigError(explain_unknown_key(key, config))
    with open_dict(config):
        OmegaConf.update(config, key, override.value(), merge=True, force_add=True)
