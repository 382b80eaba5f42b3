"""Which data, networks and experiments go together, found by composing them."""

import re

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from src.config.composition import CONFIG_DIR, choices_of, compose_config
from src.config.targets import check_targets
from src.utils.errors import ConfigError
from src.utils.nested import dotted


def explain_misfit(config: DictConfig) -> str | None:
    """Return the message for a configuration whose data or network cannot stand in its experiment; None if they can.

    It takes seconds, so it is for configurations that have failed already.
    """
    here = f"experiment={config.experiment}", f"scale={config.scale}"
    for group in ("datamodule", "model"):
        choice = _choice_of(group, config)
        if choice is None or _fits(*here, f"{group}={choice}"):
            continue
        others = [name for name in choices_of(group) if _fits(*here, f"{group}={name}")]
        homes = [name for name in choices_of("experiment") if _fits(f"experiment={name}", f"{group}={choice}")]
        return (
            f"expected {group} to be one of {', '.join(others)} for experiment={config.experiment}, got {choice!r}, "
            f"which fits experiment={' | '.join(homes) or '(none)'}"
        )
    return None


def _choice_of(group: str, config: DictConfig) -> str | None:
    """Return the choice whose file builds the same classes."""
    targets = {node for key, node in dotted(config[group]) if key.rpartition(".")[2] == "_target_"}
    return next((name for name in choices_of(group) if _targets_of(group, name) == targets), None)


def _targets_of(group: str, choice: str) -> set[str]:
    text = (CONFIG_DIR / group / f"{choice}.yaml").read_text(encoding="utf-8")
    return set(re.findall(r"^\s*_target_:\s*([\w.]+)", text, re.MULTILINE))


def _fits(*overrides: str) -> bool:
    try:
        check_targets(compose_config([*overrides, "run_dir=."]))
    except (ConfigError, OmegaConfBaseException):
        return False
    return True
