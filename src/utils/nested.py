"""Nested mappings and lists by dotted keys."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def dotted(node: Any, prefix: str = "", *, lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield every value inside nested mappings with its dotted key, a mapping before what it contains.

    All keys begin with ``prefix``. With ``lists``, the items of lists and tuples count too, as ``key[0]``.
    """
    if isinstance(node, Mapping):
        children = [(f"{prefix}.{key}" if prefix else str(key), child) for key, child in node.items()]
    elif lists and isinstance(node, Sequence) and not isinstance(node, str | bytes):
        children = [(f"{prefix}[{index}]", child) for index, child in enumerate(node)]
    else:
        return
    for key, child in children:
        yield key, child
        yield from dotted(child, key, lists=lists)


def flat(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; a list is a leaf, and so is an empty mapping."""
    return {key: value for key, value in dotted(node) if not (isinstance(value, Mapping) and value)}
