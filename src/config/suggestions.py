"""Naming the valid key that a user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from omegaconf import DictConfig, OmegaConf


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the valid name nearest to ``name``, else the list of all valid names.

    A dotted name is compared as a whole, and its last part with the last parts, so that ``max_epoch`` finds
    ``trainer.max_epochs``.
    """
    names = sorted(set(valid))
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not nearest:
        by_leaf = {full.rsplit(".", 1)[-1]: full for full in reversed(names)}
        leaves = difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1, cutoff=0.7)
        nearest = [by_leaf[leaf] for leaf in leaves]
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return f"; valid: {', '.join(names)}" if len(names) <= 20 else ""


def config_keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield every key of the configuration, dotted."""
    for key in node:
        full = prefix + str(key)
        yield full
        # The node itself, not its value: an interpolation need not resolve to be a key.
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_interpolation() or child._is_missing()):
            yield from config_keys(child, f"{full}.")


def explain_unknown_key(key: str, config: DictConfig, groups: Iterable[str] = ()) -> str:
    """Return the message for a ``key`` that the configuration does not have."""
    parent = key.rpartition(".")[0]
    scope = OmegaConf.select(config, parent) if parent else None
    valid = [*config_keys(config), *groups]
    if isinstance(scope, DictConfig):
        siblings = [f"{parent}.{name}" for name in map(str, scope)]
        if difflib.get_close_matches(key, siblings, n=1, cutoff=0.6):
            valid = siblings
    elif "." not in key:
        # A word without a dot most likely means a top-level key or a group.
        top = [*map(str, config), *groups]
        valid = top if difflib.get_close_matches(key, top, n=1, cutoff=0.6) else valid
    return f"expected a key of the configuration, got {key!r}{did_you_mean(key, valid)}"
