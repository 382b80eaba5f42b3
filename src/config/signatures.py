"""Signatures read from source: importing torch and Lightning to find a typo would take seconds."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path

PLAIN_TYPES = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}


@dataclass(frozen=True)
class Plain:
    """A type hint of plain types and literal values only."""

    types: frozenset[type] = frozenset()
    literals: tuple[object, ...] = ()

    def __or__(self, other: Plain) -> Plain:
        return Plain(self.types | other.types, tuple(dict.fromkeys((*self.literals, *other.literals))))

    def allows(self, value: object) -> bool:
        """Whether the hint includes ``value``; an integer is a float too."""
        if type(value) in self.types or (type(value) is int and float in self.types):
            return True
        return any(type(value) is type(literal) and value == literal for literal in self.literals)


@dataclass(frozen=True)
class Signature:
    """The parameters by name, each with its hint if that is plain; ``takes_any`` if there are ``**kwargs``."""

    parameters: dict[str, Plain | None]
    takes_any: bool


NOTHING = Signature({}, takes_any=False)


@dataclass(frozen=True)
class _Found:
    """A definition, with the file and the name of its module."""

    node: ast.AST
    path: Path
    module: str


def signature_of(path: str) -> Signature | None:
    """Return the signature of ``package.module.name``, or None if its source does not tell."""
    found = _find(path)
    return None if found is None else _signature(found)


def _signature(found: _Found) -> Signature | None:
    node = found.node
    if isinstance(node, ast.ClassDef):
        if any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list):
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            hints = {n.target.id: _plain(n.annotation, found) for n in fields}  # type: ignore[union-attr]
            return None if node.bases else Signature(hints, takes_any=False)
        own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        bases = [_signature(base) if base else None for base in (_resolve(base, found) for base in node.bases)]
        # A base without an __init__ of its own, such as ABC, leaves it to the next one.
        inherited = None if None in bases else next((s for s in bases if s and s != NOTHING), NOTHING)
        if own is None:
            return inherited
        signature = _of_function(found, own, skip_first=True)
        if signature.takes_any and inherited is not None:
            # It probably passes on the keywords that it does not name.
            return Signature({**inherited.parameters, **signature.parameters}, takes_any=True)
        return signature
    return _of_function(found, node) if isinstance(node, ast.FunctionDef) else None


def _of_function(found: _Found, node: ast.FunctionDef, skip_first: bool = False) -> Signature:
    arguments = [*node.args.posonlyargs, *node.args.args][1 if skip_first else 0 :] + node.args.kwonlyargs
    hints = {a.arg: _plain(a.annotation, found) if a.annotation is not None else None for a in arguments}
    return Signature(hints, takes_any=node.args.kwarg is not None)


def _plain(hint: ast.AST, place: _Found) -> Plain | None:
    if isinstance(hint, ast.Constant):
        if isinstance(hint.value, str):  # a hint in quotes
            return _plain(ast.parse(hint.value, mode="eval").body, place)
        return Plain(frozenset({type(None)})) if hint.value is None else None
    if isinstance(hint, ast.BinOp) and isinstance(hint.op, ast.BitOr):
        return _union([hint.left, hint.right], place)
    if isinstance(hint, ast.Subscript):
        kind = ast.unparse(hint.value).rpartition(".")[2]
        items = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        if kind == "Literal":
            return Plain(literals=tuple(item.value for item in items if isinstance(item, ast.Constant)))
        if kind in ("Union", "Optional"):
            return _union([*items, *([ast.Constant(None)] if kind == "Optional" else [])], place)
        return None
    if isinstance(hint, ast.Name):
        if hint.id in PLAIN_TYPES:
            return Plain(frozenset({PLAIN_TYPES[hint.id]}))
        alias = _resolve(hint, place)
        return None if alias is None or isinstance(alias.node, ast.ClassDef) else _plain(alias.node, alias)
    return None


def _union(hints: list[ast.expr], place: _Found) -> Plain | None:
    parts = [_plain(hint, place) for hint in hints]
    return None if None in parts else functools.reduce(Plain.__or__, parts)  # type: ignore[arg-type]


def _resolve(name: ast.AST, place: _Found) -> _Found | None:
    """Return the definition of a name or dotted name in a module."""
    if isinstance(name, ast.Name):
        return _lookup(place, name.id)
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
        for local, full in _imports(place):
            if local == name.value.id:
                return _find(f"{full}.{name.attr}")
    return None


def _imports(place: _Found) -> Iterator[tuple[str, str]]:
    """Yield (local name, full dotted name) of everything that a module imports."""
    package = place.module.split(".")[: None if place.path.name == "__init__.py" else -1]
    for node in _statements(_parse(place.path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, f"{source}.{alias.name}"


def _lookup(place: _Found, name: str) -> _Found | None:
    for node in _statements(_parse(place.path)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return replace(place, node=node)
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            return _resolve(node.value, place) if isinstance(node.value, ast.Name) else replace(place, node=node.value)
    for local, full in _imports(place):
        if local == name:
            return _find(full)
        if local == "*" and (found := _find(full.removesuffix("*") + name)) is not None:
            return found
    return None


def _find(path: str) -> _Found | None:
    name, *rest = path.split(".")
    spec = PathFinder.find_spec(name, [entry or "." for entry in sys.path])
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    file = Path(spec.origin)
    while rest and file.name == "__init__.py":
        package, module = file.parent / rest[0] / "__init__.py", file.parent / f"{rest[0]}.py"
        if not package.is_file() and not module.is_file():
            break
        file, name = package if package.is_file() else module, f"{name}.{rest.pop(0)}"
    return _lookup(_Found(_parse(file), file, name), rest[0]) if len(rest) == 1 else None


def _statements(tree: ast.Module | ast.If | ast.Try) -> Iterator[ast.stmt]:
    """Yield the statements of a module, including those in its ``if`` and ``try`` blocks."""
    for node in [*tree.body, *getattr(tree, "orelse", ())]:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements(node)


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
