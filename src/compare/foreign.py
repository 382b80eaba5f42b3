"""What files that somebody else wrote may hold, made fit for the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from src.compare.references import resolve_references
from src.config.checks import plain
from src.utils.reading import MAX_INTEGER, finite_number

# Deeper ones end in Python's limit of recursion, wherever they are walked through next.
MAX_DEPTH = 50
TOO_DEEP = f"expected at most {MAX_DEPTH} containers in each other, got more"
MAX_CHARACTERS = 200


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a run as plain containers, references resolved and resolvers not called.

    Raises:
        Exception: for a damaged file, whatever the parser raises, and for one that no run writes.
    """
    _check_syntax(path.read_text(encoding="utf-8"))
    content = OmegaConf.load(path)
    if not isinstance(content, DictConfig):
        raise ValueError("no mapping")
    config = resolve_references(plain(content, resolve=False))
    check_depth(config)
    # As summary.json would hold it.
    return json.loads(json.dumps(config, default=str))


def _check_syntax(text: str) -> None:
    """Refuse what may grow without end, or take OmegaConf without end, and what no run writes."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("expected no aliases")
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)


def check_depth(content: Any) -> None:
    """Check how deep containers lie in each other.

    Raises:
        ValueError: if it is more than ``MAX_DEPTH``.
    """
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [child for node in level if isinstance(node, dict | list) for child in _children(node)]
    if level:
        raise ValueError(TOO_DEEP)


def _children(node: dict[Any, Any] | list[Any]) -> list[Any]:
    return list(node.values()) if isinstance(node, dict) else node


def as_text(value: Any) -> str | None:
    """Return a value as text that can be shown and written; None stays None."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # Half of a surrogate pair is no character of UTF-8.
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= MAX_CHARACTERS else f"{clean[:MAX_CHARACTERS]}…"


def as_seed(value: Any) -> int | float | str | None:
    """Return a seed as the number that it should be, else as text."""
    number = finite_number(value)
    return number if number is not None and abs(number) <= MAX_INTEGER else as_text(value)
