"""Checking a configuration against the constructors that it calls, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from src.config.signatures import Plain, Signature, signature_of
from src.config.suggestions import did_you_mean
from src.utils.errors import ConfigError

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
    path = node["_target_"]
    signature = signature_of(path) or _imported_signature(place, path)
    for key in map(str, node):
        if key in HYDRA_KEYS:
            continue
        if key not in signature.parameters and not signature.takes_any:
            hint = did_you_mean(key, signature.parameters)
            raise ConfigError(f"expected an argument of {path}, got {place}.{key}{hint}")
        _check_value(f"{place}.{key}", node[key], signature.parameters.get(key))


def _check_value(place: str, value: Any, hint: Plain | None) -> None:
    """Refuse a value that a plain hint excludes; other hints are the constructor's business."""
    if hint is None or hint.allows(value):
        return
    types = sorted("null" if kind is type(None) else kind.__name__ for kind in hint.types)
    words = [str(literal) for literal in hint.literals]
    nearest = did_you_mean(str(value), words) if words else ""
    raise ConfigError(
        f"expected {place} to be {'one of ' if words else ''}{', '.join(words)}{' or ' if words and types else ''}"
        f"{' or '.join(types)}, got {value!r}{nearest if 'did you mean' in nearest else ''}"
    )


def _imported_signature(place: str, path: str) -> Signature:
    """Import what has no source to read, or what is not there at all."""
    try:
        target = get_object(path)
    except (ImportError, AttributeError, ValueError, InstantiationException) as error:
        raise ConfigError(f"expected an importable class in {place}._target_, got {path!r}: {error}") from error
    if not callable(target):
        raise ConfigError(f"expected a class or function in {place}._target_, got {path!r}")
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return Signature(dict.fromkeys(parameters), takes_any)
