"""Which data, networks and experiments go together, as the experiments say in ``about.fits``."""

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR, choices_of
from src.utils.nested import dotted


def explain_misfit(config: DictConfig) -> str | None:
    """Return the message for a configuration with data or a network of other experiments; None if it has none."""
    for group in ("datamodule", "model"):
        choice = _choice_of(group, config) if group in config else None
        fitting = _fitting(config, group)
        homes = [name for name in choices_of("experiment") if choice in _fitting(_experiment(name), group)]
        if choice not in fitting and homes:
            return (
                f"expected {group}={'|'.join(fitting)} for experiment={config.experiment}, got {group}={choice}, "
                f"which fits experiment={'|'.join(homes)}"
            )
    return None


def _fitting(config: Any, group: str) -> list[str]:
    return list(OmegaConf.select(config, f"about.fits.{group}") or [])


def _experiment(name: str) -> Any:
    return OmegaConf.load(CONFIG_DIR / "experiment" / f"{name}.yaml")


def _choice_of(group: str, config: DictConfig) -> str | None:
    """Return the choice whose file builds the same classes."""
    # Not resolved: what a part refers to may be what its experiment lacks.
    nodes = dotted(OmegaConf.to_container(config[group], resolve=False))
    targets = {node for key, node in nodes if key.rpartition(".")[2] == "_target_"}
    return next((name for name in choices_of(group) if _targets_of(group, name) == targets), None)


def _targets_of(group: str, choice: str) -> set[str]:
    text = (CONFIG_DIR / group / f"{choice}.yaml").read_text(encoding="utf-8")
    return set(re.findall(r"^\s*_target_:\s*([\w.]+)", text, re.MULTILINE))
