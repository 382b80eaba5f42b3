"""Checks of a whole configuration."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.combinations import check_combinations
from src.config.lookups import check_lookups
from src.config.targets import check_targets
from src.utils.errors import ConfigError, did_you_mean

# Defined by configs/train.yaml and its groups; an experiment puts its own values under `network` or into its groups.
TOP_LEVEL_KEYS = (
    *("experiment", "scale", "seed", "backprop", "compile", "run_dir", "resume", "fit", "test", "debug", "monitor"),
    *("about", "network", "image", "datamodule", "model", "task", "trainer", "logger", "callbacks", "choices"),
)
OPTIONAL_KEYS = {"compile", "about", "network", "image", "logger", "callbacks", "choices"}
# What ``compile`` may be besides false: the modes of `torch.compile`.
COMPILE_MODES: dict[Any, str] = {True: "default", "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}


def check_no_flags(arguments: Iterable[str]) -> None:
    """Refuse ``--model`` and the like: Hydra takes some of them for abbreviations of its own flags.

    Raises:
        ConfigError: for a key of the configuration with dashes in front.
    """
    for word in arguments:
        key = re.match(r"--(\w+)[\w./]*", word)
        if key is not None and key[1] in TOP_LEVEL_KEYS:
            raise ConfigError(f"expected key=value, such as experiment=ct_postproc, got {key[0]}")


def checked(config: DictConfig) -> DictConfig:
    """Return the configuration if it passes all checks that come before anything is built.

    Raises:
        ConfigError: naming the key, and what was expected.
    """
    # compare.py reads configurations, and starts without Hydra.
    from src.config.choices import check_choices
    from src.config.fits import explain_misfit

    with_folder = config.copy()
    # Values that refer to a run folder which is not chosen yet must be text, not null.
    with_folder.run_dir = config.get("run_dir") or "."
    try:
        check_config(config)
        check_choices(with_folder)
        check_targets(with_folder)
    except (ConfigError, OmegaConfBaseException) as error:
        misfit = explain_misfit(with_folder)
        if misfit is None:
            raise
        raise ConfigError(misfit) from error
    check_combinations(with_folder)
    return config


def check_config(config: DictConfig) -> None:
    """Check the top-level keys, the values that no constructor gets or that choose others, and that none is missing.

    Raises:
        ConfigError: naming the key, and the nearest valid one for an unknown key.
    """
    for key in map(str, config):
        if key not in TOP_LEVEL_KEYS:
            raise ConfigError(f"expected a key of configs/train.yaml, got {key!r}{did_you_mean(key, TOP_LEVEL_KEYS)}")
    absent = [key for key in TOP_LEVEL_KEYS if key not in config and key not in OPTIONAL_KEYS]
    if absent:
        raise ConfigError(f"expected a configuration with {', '.join(absent)}, got one without")
    check_lookups(config)  # before anything is resolved
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"expected a value for {', '.join(missing)}, got none (???)")
    if type(config.seed) is not int or not 0 <= config.seed < 2**32:
        raise ConfigError(f"expected seed to be an integer from 0 to 4294967295, got {config.seed!r}")
    for key in ("fit", "test", "debug"):
        if not isinstance(config[key], bool):
            raise ConfigError(f"expected {key} to be true or false, got {config[key]!r}")
    if config.get("compile", False) is not False and config.compile not in COMPILE_MODES:
        choices = ", ".join(["false", "true", *(str(name) for name in COMPILE_MODES if name is not True)])
        raise ConfigError(f"expected compile to be one of {choices}, got {config.compile!r}")


def compile_mode(config: DictConfig) -> str | None:
    """Return the mode of `torch.compile` for the subnets; None if they are not compiled, as in older configurations."""
    return COMPILE_MODES.get(config.get("compile", False))


def plain(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    """Return the configuration as plain containers, with interpolations resolved or as they are written."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def model_name(config: DictConfig | Mapping[str, Any]) -> str:
    """Return the network's readable name: the class of its body or flow if it has one, else its own class."""
    model = config["model"]
    node = next((model[key] for key in ("body", "flow") if key in model), model)
    return str(node["_target_"]).rpartition(".")[2].lower()
