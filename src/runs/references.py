"""Resolve references ``${a.b}`` in a saved configuration and nothing else, since it may come from a stranger.

OmegaConf would also run resolvers such as ``${oc.env:SECRET}``; here they stay as they are written.
"""

from __future__ import annotations

import re
from typing import Any

# The innermost of nested references; a call of a resolver has a colon.
REFERENCE = re.compile(r"(?<!\\)\$\{([^${}:]*)\}")
# Values and characters in total: references to references can double with every line.
MAX_SIZE = 200_000

Path = tuple[Any, ...]


def resolve_references(config: dict[str, Any]) -> dict[str, Any]:
    """Return plain containers with each reference replaced by what it refers to, relative ones included.

    Raises:
        ValueError: for a reference to nothing or to itself, and for a result that grows too large.
    """
    return _Resolver(config).resolved((), config)


class _Resolver:
    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._size = 0
        self._open: set[Path] = set()

    def resolved(self, path: Path, node: Any) -> Any:
        self._grow(1)
        if isinstance(node, dict):
            return {key: self.resolved((*path, key), value) for key, value in node.items()}
        if isinstance(node, list):
            return [self.resolved((*path, index), value) for index, value in enumerate(node)]
        return self._resolved_text(path, node) if isinstance(node, str) else node

    def _resolved_text(self, path: Path, text: str) -> Any:
        while match := REFERENCE.search(text):
            value = self._referred(path, match[1])
            if match[0] == text:
                return value
            text = f"{text[: match.start()]}{value}{text[match.end() :]}"
            self._grow(len(text))
        return text

    def _referred(self, path: Path, reference: str) -> Any:
        """Return the value of ``a.b[0]`` or, from the container that ``path`` lies in, of ``.b`` or ``..a.b``."""
        dots = len(reference) - len(reference.lstrip("."))
        start = path[: len(path) - dots] if dots else ()
        target = (*start, *re.findall(r"[^.\[\]]+", reference))
        if target in self._open or dots > len(path):
            raise ValueError(f"expected a reference to another value, got ${{{reference}}}")
        self._open.add(target)
        node: Any = self._config
        for depth, key in enumerate(target):
            if isinstance(node, str):
                node = self._resolved_text(target[:depth], node)
            node = _child(node, key, reference)
        value = self.resolved(target, node)
        self._open.remove(target)
        return value

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            raise ValueError(f"expected references to at most {MAX_SIZE} values and characters, got more")


def _child(node: Any, key: Any, reference: str) -> Any:
    try:
        return node[int(key)] if isinstance(node, list) else node[key]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"expected a key that exists, got ${{{reference}}}") from error
