"""Checks of a configuration against the constructors that it calls, before anything is built."""

import inspect
from typing import Any

from omegaconf import DictConfig

from src.config.signatures import Plain, Signature, signature_of
from src.utils.errors import ConfigError, did_you_mean
from src.utils.nested import dotted

HYDRA_KEYS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_targets(config: DictConfig) -> None:
    """Check that every ``_target_`` exists and takes its node's arguments, and that plain values have the right types.

    Raises:
        ConfigError: naming the node, the argument, the experiment's file that sets it, and the nearest valid one or the
            expected type.
    """
    for place, node in dotted(config, lists=True):
        if not isinstance(node, DictConfig) or "_target_" not in node:
            continue
        path = node["_target_"]
        signature = signature_of(path) or _imported_signature(place, path)
        for key in map(str, node):
            if key in HYDRA_KEYS:
                continue
            if key not in signature.parameters and not signature.takes_any:
                from src.config.origins import origin  # imports Hydra, which a page of runs does without

                hint = did_you_mean(key, signature.parameters)
                source = origin(config, f"{place}.{key}")
                raise ConfigError(f"expected an argument of {path}, got {place}.{key}{source}{hint}")
            _check_value(f"{place}.{key}", node[key], signature.parameters.get(key))


def _check_value(place: str, value: Any, hint: Plain | None) -> None:
    """Refuse a value that a plain hint excludes; the constructor checks other hints itself."""
    if hint is None or hint.allows(value):
        return
    types = sorted("null" if kind is type(None) else kind.__name__ for kind in hint.types)
    words = [str(literal) for literal in hint.literals]
    raise ConfigError(
        f"expected {place} to be {'one of ' if words else ''}{', '.join(words)}{' or ' if words and types else ''}"
        f"{' or '.join(types)}, got {value!r}{did_you_mean(str(value), words, listed=False)}"
    )


def _imported_signature(place: str, path: str) -> Signature:
    """Return the signature of a class without Python source, by importing it."""
    from hydra.errors import InstantiationException
    from hydra.utils import get_object

    try:
        target = get_object(path)
    except (ImportError, AttributeError, ValueError, InstantiationException) as error:
        raise ConfigError(f"expected an importable class in {place}._target_, got {path!r}: {error}") from error
    if not callable(target):
        raise ConfigError(f"expected a class or function in {place}._target_, got {path!r}")
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return Signature(dict.fromkeys(parameters), takes_any)
