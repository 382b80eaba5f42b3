"""Composing the configuration, and explaining in one line why a command line does not compose."""

import difflib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict

from src.config.signatures import signature_of
from src.utils.errors import ConfigError, did_you_mean
from src.utils.nested import dotted

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"


# Config groups inside of a section, and the keys that their choices give.
SECTION_GROUPS = {"task/optimizer": "task.optimizer", "task/scheduler": "task.scheduler", "task/loss": "task.criterion"}


def config_groups() -> list[str]:
    """Return the names of the config groups that the command line chooses from."""
    return sorted([*(folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir()), *SECTION_GROUPS])


def choices_of(group: str) -> list[str]:
    """Return the choices of a group; ``base`` is what they share.

    Experiments are also in folders, beside the values of an experiment's scales.
    """
    names = [path.stem for path in (CONFIG_DIR / group).glob("*.yaml") if path.stem != "base"]
    if group == "experiment":
        scales = choices_of("scale")
        inner = (CONFIG_DIR / group).glob("*/*.yaml")
        names += [f"{path.parent.name}/{path.stem}" for path in inner if path.stem not in scales]
    return sorted(names)


def compose_config(overrides: list[str]) -> DictConfig:
    """Compose ``configs/train.yaml`` with ``overrides``, as the command line does, and tell the choices.

    Raises:
        ConfigError: naming the nearest valid key or choice.
    """
    with explained(overrides):
        return _compose(overrides)


def tell_choices(config: DictConfig, hydra: Any) -> None:
    """Add ``choices``, by groups, which only Hydra's own configuration knows: a saved run may get another one."""
    groups = config_groups()
    choices = {group: hydra.runtime.choices[group] for group in groups if group in hydra.runtime.choices}
    # Hydra does not tell lists.
    words = [word.partition("=") for word in hydra.overrides.task]
    choices |= {group: value for group, _, value in words if group in groups and value.startswith("[")}
    with open_dict(config):
        config.choices = {group: choice for group, choice in choices.items() if group not in ("hydra", "training")}


def parse_overrides(overrides: list[str]) -> list[Override]:
    """Return the parts of Hydra's overrides.

    Raises:
        ConfigError: for text that is no override.
    """
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        raise ConfigError(_explain_word(error)) from error


@contextmanager
def explained(overrides: list[str]) -> Iterator[None]:
    """Turn Hydra's composition errors into a ConfigError that names the nearest valid key or choice."""
    for nothing in ("~logger", "logger=null"):
        if nothing in overrides:
            raise ConfigError(f"expected logger=[] for none, got {nothing}")
    for nothing in ("~callbacks", "callbacks=null", "callbacks=[]"):
        if nothing in overrides:
            raise ConfigError(f"expected ~callbacks.<name> for one less, because others save the run, got {nothing}")
    for word in overrides:
        if word in ("~model", "~experiment", "~scale"):
            raise ConfigError(f"expected a configuration with {word[1:]}, got {word}")
        if re.match(r"[+~]*training\b", word):
            raise ConfigError(f"expected no {word}: experiment, scale and model choose configs/training together")
        experiment, _, scale = word.removeprefix("experiment=").rpartition("/")
        if word.startswith("experiment=") and scale in choices_of("scale"):
            raise ConfigError(f"expected experiment={experiment} scale={scale}, got {word}")
    try:
        yield
    except OverrideParseException as error:
        raise ConfigError(_explain_word(error)) from error
    except MissingConfigException as error:
        raise ConfigError(_explain_choice(error)) from error
    except ConfigCompositionException as error:
        raise ConfigError(_explain_override(error, overrides)) from error


def _compose(overrides: list[str]) -> DictConfig:
    # compose() replaces the global Hydra; the one that hydra.main has set must come back.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            config = compose("train", overrides, return_hydra_config=True)
        with open_dict(config):
            tell_choices(config, config.pop("hydra"))
        return config
    finally:
        GlobalHydra.instance().hydra = outer


def _explain_choice(error: MissingConfigException) -> str:
    file = error.missing_cfg_file or ""
    is_experiment = file.startswith("experiment/")
    group, _, choice = file.partition("/") if is_experiment else file.rpartition("/")
    # Hydra lists the options of a single choice, not those of a list such as logger=[csv,wandb], nor those in folders.
    options = choices_of(group) if is_experiment else error.options or choices_of(group)
    nearest = did_you_mean(choice, options, listed=False)
    return f"expected {group} to be one of {', '.join(options)}, got {choice!r}{nearest}"


def _explain_word(error: OverrideParseException) -> str:
    """Return the message for an argument outside of Hydra's grammar; a choice alone most likely lacks its group."""
    word = error.override
    choices = [f"{group}={choice}" for group in ("experiment", *config_groups()) for choice in choices_of(group)]
    meant = [choice for choice in choices if choice.endswith(f"={word}")]
    if meant:
        return f"expected {meant[0]}, got {word!r}"
    return f"expected key=value, got {word!r}{did_you_mean(f'experiment={word}', choices, listed=False)}"


def _explain_override(error: ConfigCompositionException, overrides: list[str]) -> str:
    merging = re.fullmatch(r"Error merging override (([\w./@]+)=.*)", str(error), re.DOTALL)
    if merging is not None:
        word, key = merging.groups()
        replacing = shlex.join([f"~{key}", f"+{word}"])
        return f"expected a value that fits into the present one of {key}, got {word}; to replace it: {replacing}"
    match = re.match(r"Could not (?:override|delete)\b[^']*'([\w./@]+)'", str(error))
    if match is None:
        return str(error)
    key = match.group(1)
    others = [o for o in overrides if o.lstrip("+~").partition("=")[0] != key and "=" in o and not o.startswith("-")]
    try:
        config = _compose(others)
    except (MissingConfigException, ConfigCompositionException):
        # Another argument is wrong as well; the defaults suffice to name the nearest key.
        config = _compose([])
    return explain_unknown_key(key, config)


def config_keys(config: DictConfig) -> list[str]:
    """Return every key of the configuration, dotted; an interpolation need not resolve to be one."""
    return [key for key, _ in dotted(OmegaConf.to_container(config))]


def explain_unknown_key(key: str, config: DictConfig) -> str:
    """Return the message for a ``key`` that the configuration does not have, with the key that was probably meant."""
    if key in SECTION_GROUPS:
        return f"expected no {key} for {OmegaConf.select(config, 'task._target_')}, which has no choice of it"
    group = key.replace(".", "/")
    if OmegaConf.select(config, key) is not None:
        return f"expected keys that {key} has, got others; a plus adds one: +{key}.<key>=<value>"
    if group in SECTION_GROUPS:
        return f"expected {group}=<choice> with a slash, one of {', '.join(choices_of(group))}, got {key!r}"
    parent, _, name = key.rpartition(".")
    # A word without a dot most likely means a top-level key or a group, another one a key of its section.
    section = OmegaConf.select(config, parent) if parent else None
    signature = signature_of(str(section.get("_target_"))) if isinstance(section, DictConfig) else None
    if signature is not None and name in signature.parameters:
        return f"expected +{key}=<value>, with a plus, for an argument that configs/ does not set, got {key!r}"
    siblings = [f"{parent}.{sibling}" for sibling in map(str, section)] if isinstance(section, DictConfig) else []
    near = siblings if parent else [*map(str, config), *config_groups()]
    is_near = bool(difflib.get_close_matches(key, near, n=1, cutoff=0.6))
    valid = near if is_near else [*config_keys(config), *config_groups()]
    return f"expected a key of the configuration, got {key!r}{did_you_mean(key, valid)}"
