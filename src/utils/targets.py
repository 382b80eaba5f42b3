"""Checking a configuration against the constructors that it calls, before anything is built."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from src.utils.errors import ConfigError
from src.utils.suggestions import did_you_mean

HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(config: DictConfig) -> None:
    """Check that every ``_target_`` exists and takes the arguments that its node gives, plain values by their type.

    Raises:
        ConfigError: naming the node, the argument, and the nearest valid one or the expected type.
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
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    hints = _type_hints(target)
    for key in map(str, node):
        if key in HYDRA_KEYS:
            continue
        if key not in parameters and not takes_any:
            raise ConfigError(
                f"expected an argument of {node['_target_']}, got {place}.{key}{did_you_mean(key, parameters)}"
            )
        _check_type(f"{place}.{key}", node[key], hints.get(key, Any))


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # names that exist for type checkers only, or a callable without annotations
        return {}


def _check_type(place: str, value: Any, hint: Any) -> None:
    """Refuse a value that a hint made of plain types excludes; other hints are the constructor's business."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if not set(options) <= {int, float, bool, str, type(None)}:
        return
    if type(value) in options or (type(value) is int and float in options):
        return
    expected = " or ".join("null" if option is type(None) else option.__name__ for option in options)
    raise ConfigError(f"expected {place} to be {expected}, got {value!r}")


def _locate(place: str, path: str) -> Callable[..., Any]:
    try:
        target = get_object(path)
    except (ImportError, AttributeError, ValueError, InstantiationException) as error:
        raise ConfigError(f"expected an importable class in {place}._target_, got {path!r}: {error}") from error
    if not callable(target):
        raise ConfigError(f"expected a class or function in {place}._target_, got {path!r}")
    return target
