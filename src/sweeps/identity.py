"""What makes two runs the same: the configuration, without what cannot change a result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

# Where files lie, what is printed and logged, what an experiment says of itself, how fast the data come. Not the number
# of loading workers: each worker draws its own random numbers.
EXECUTION_KEYS = (
    *("about", "run_dir", "resume", "debug", "logger"),
    *("datamodule.data_dir", "datamodule.pin_memory", "datamodule.download", "datamodule.generation_workers"),
)
# Callbacks that save, measure and draw. Others, such as one that picks the tested checkpoint, may change a result.
WATCHING_CALLBACKS = (
    *("last", "interrupt", "random_state", "progress", "learning_rate", "peak_memory", "step_time", "invertibility"),
    *("test_table", "curves", "images", "confusion", "total_time"),
)
# Only what other values refer to: those hold what it comes to.
REFERRED_TO = "network"

# From the arguments of a cell to its digest.
Identify = Callable[[list[str]], str]


def is_execution_key(key: str) -> bool:
    """Whether a key of the configuration cannot change a result."""
    others = (*EXECUTION_KEYS, *(f"callbacks.{name}" for name in WATCHING_CALLBACKS))
    return any(key == other or key.startswith(f"{other}.") for other in others)


def digest(content: Any) -> str:
    """Return eight hexadecimal digits that differ for different contents."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digest_of_arguments(arguments: list[str]) -> str:
    """Return the digest of a program's arguments, for programs that have no configuration of ours."""
    kept = [argument for argument in arguments if not is_execution_key(argument.lstrip("+~").partition("=")[0])]
    return digest(sorted(kept))


def digest_of_composed(arguments: list[str]) -> str:
    """Return the digest of the configuration that ``train.py`` composes from its arguments.

    Raises:
        ConfigError: if they do not compose.
    """
    from src.config.checks import check_config, plain
    from src.config.composition import compose_config

    config = compose_config(arguments)
    check_config(config)
    config.run_dir = "somewhere"  # and not null, which would stand in its places
    return digest_of_config(plain(config, resolve=True))


def digest_of_config(config: dict[str, Any]) -> str:
    """Return the digest of a resolved configuration, as summary.json holds it, wherever the run wrote its files."""
    values = {key: value for key, value in config.items() if key != REFERRED_TO}
    return digest(_without_place(values, str(config.get("run_dir"))))


def _without_place(node: Any, run_dir: str, prefix: str = "") -> Any:
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if not is_execution_key(f"{prefix}{key}")}
        return {key: _without_place(value, run_dir, f"{prefix}{key}.") for key, value in kept.items()}
    if isinstance(node, list):
        return [_without_place(value, run_dir, f"{prefix}[].") for value in node]
    if isinstance(node, str) and (node == run_dir or node.startswith(f"{run_dir}/")):
        return "<run_dir>" + node[len(run_dir) :]
    return node
