"""Checking a configuration against the constructors that it calls, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from src.utils.errors import ConfigError
from src.utils.suggestions import did_you_mean

HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(config: DictConfig) -> None:
    """Check that every ``_target_`` exists and takes the arguments that its node gives.

    Raises:
        ConfigError: naming the node, the argument and the nearest valid one.
    """
    for place, node in _nodes(config, ""):
        _check_node(place, node)


def _nodes(node: Any, place: str) -> Iterator[tuple[str, DictConfig]]:
    if isinstance(node, ListConfig):
        children = [(f"{place}[{i}]", child) for i, child in enumerate(node)]
    elif isinstance(node, DictConfig):
        if "_target_" in node:
            yield place, node
        children = [(f"{place}.{key}".lstrip("."), node[key]) for key in map(str, node)]
    else:
        return
    for child_place, child in children:
        yield from _nodes(child, child_place)


def _check_node(place: str, node: DictConfig) -> None:
    target = _locate(place, node["_target_"])
    parameters = inspect.signature(target).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key in map(str, node):
        if key not in parameters and key not in HYDRA_KEYS:
            raise ConfigError(
                f"expected an argument of {node['_target_']}, got {place}.{key}{did_you_mean(key, parameters)}"
            )


def _locate(place: str, path: str) -> Callable[..., Any]:
    try:
        target = get_object(path)
    except (ImportError, AttributeError, ValueError, InstantiationException) as error:
        raise ConfigError(f"expected an importable class in {place}._target_, got {path!r}: {error}") from error
    if not callable(target):
        raise ConfigError(f"expected a class or function in {place}._target_, got {path!r}")
    return target
