"""The choices of config groups that a saved configuration was composed of, and what another choice changes in it."""

import functools
import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from src.config.checks import plain
from src.config.composition import CONFIG_DIR, SECTION_GROUPS, choices_of, compose_config, config_groups
from src.utils.nested import flat

Choices = dict[str, str]
# The name of a choice. It must not lead out of configs/, because a saved configuration may come from a stranger.
NAME = re.compile(r"[\w-]+(/[\w-]+)*")


def known_choices(config: DictConfig) -> Choices:
    """Return the choices that a saved configuration tells by their groups, as far as configs/ still has them.

    A configuration of an earlier version tells none. (Null, which cannot be chosen on a command line, is a default.)
    """
    saved = config.get("choices") or {}
    return {group: saved[group] for group in config_groups() if group in saved and _exists(group, saved[group])}


def experiment_of(config: DictConfig) -> str:
    """Return the experiment that was chosen: ``config.experiment``, or a variant of it such as ``irevnet_lab/sheet``.

    Where the configuration does not tell it, it is the one whose values are nearest.
    """
    if known := known_choices(config).get("experiment"):
        return known
    own = plain(config, resolve=False)
    variants = {name: _composed({"experiment": name, "scale": config.scale}) for name in _variants(config.experiment)}
    distances = {name: _distance(own, plain(variant, resolve=False)) for name, variant in variants.items()}
    return min(distances, key=distances.__getitem__, default=config.experiment)


def choose(config: DictConfig, group: str, choice: str) -> None:
    """Make another choice of a group in a saved configuration.

    Only the keys in which the two choices differ change, both composed with the other choices of the saved run: what
    its command line has set stays. Where the configuration does not tell the former choice, the nearest one counts.

    Raises:
        ConfigError: for an unknown choice, naming the nearest one.
    """
    place = SECTION_GROUPS.get(group, group)
    known = {"experiment": config.experiment, "scale": config.scale, **known_choices(config)}
    others = {name: value for name, value in known.items() if not _is_in(name, group)}
    after = _composed({**others, group: choice})
    section, new = (_section(c, place) for c in (config, after))
    if section is not None:
        before = _section(_composed(known), place) if group in known else _nearest(section, group, others)
        new = changed(section, before, new)
    with open_dict(config):
        OmegaConf.update(config, place, new, merge=False, force_add=True)
        if "choices" in config:
            kept = {name: value for name, value in config.choices.items() if not _is_in(name, group)}
            config.choices = kept | {name: value for name, value in after.choices.items() if _is_in(name, group)}


def changed(own: Any, before: Any, after: Any) -> Any:
    """Return ``own`` with the differences from ``before`` to ``after``, key by key in nested dicts.

    A dict that builds another class afterwards keeps no arguments but those of ``after``.
    """
    if not all(isinstance(node, dict) for node in (own, before, after)):
        return own if before == after else after
    is_same_class = before.get("_target_") == after.get("_target_")
    result = {}
    for key in {**own, **after}:
        if key in own and key in before and key in after:
            result[key] = changed(own[key], before[key], after[key])
        elif key in after and (key not in before or (before[key] != after[key] and not isinstance(after[key], dict))):
            result[key] = after[key]
        elif key in own and key not in before and key not in after and is_same_class:
            result[key] = own[key]
    return result


def _exists(group: str, choice: str | None) -> bool:
    names = str(choice).strip("[]").split(",")
    return all(NAME.fullmatch(name) and (CONFIG_DIR / group / f"{name}.yaml").is_file() for name in names if name)


def _is_in(name: str, group: str) -> bool:
    """Whether a group is ``group`` or a part of it, as task/loss is of task."""
    return f"{name}/".startswith(f"{group}/")


def _variants(experiment: str) -> Iterable[str]:
    """Return an experiment, if configs/ has it, and its variants, whose files begin with its values."""
    for name in choices_of("experiment"):
        content: Any = OmegaConf.load(CONFIG_DIR / "experiment" / f"{name}.yaml")
        if name == experiment or f"/experiment/{experiment}" in content.get("defaults", []):
            yield name


def _nearest(section: Any, group: str, others: Choices) -> Any:
    """Return what the choice of a group gives whose values are nearest to a section; the default may be a list."""
    candidates = [others, *({**others, group: choice} for choice in choices_of(group))]
    sections = [_section(_composed(choices), SECTION_GROUPS.get(group, group)) for choices in candidates]
    return min(sections, key=lambda other: _distance(section, other))


def _distance(first: Any, second: Any) -> int:
    """Return the number of values that two sections do not share."""
    items = [{(key, repr(value)) for key, value in flat({"": section}).items()} for section in (first, second)]
    return len(items[0] ^ items[1])


def _section(config: DictConfig, place: str) -> Any:
    """Return plain containers, with references as they are written; None if there is no such section."""
    section = OmegaConf.select(config, place)
    return OmegaConf.to_container(section) if OmegaConf.is_config(section) else section


def _composed(choices: Choices) -> DictConfig:
    return _compose_once(*(f"{group}={choice}" for group, choice in choices.items()))


@functools.lru_cache(maxsize=64)
def _compose_once(*overrides: str) -> DictConfig:
    """Compose, which takes half a second; the result is only read."""
    return compose_config(list(overrides))
