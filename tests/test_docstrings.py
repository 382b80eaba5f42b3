"""Every public name of the library is documented completely, with an example that runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.marks import slow

ROOT = Path(__file__).parents[1]
PACKAGES = ("invertible", "models", "ct")
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Warns", "Source", "Example")
# Functions that check options and raise ValueError.
CHECKS = re.compile(r"check_\w+|chosen|per_dimension|same_padding")


class Public(NamedTuple):
    """A public name: its module, the node that defines it, what it names, and its docstring."""

    name: str
    path: Path
    node: ast.AST
    value: Any
    doc: str


def public_names() -> list[Public]:
    """What the packages export by ``from .module import name as name``."""
    found = []
    for package in PACKAGES:
        folder = ROOT / "src" / package
        namespace = vars(importlib.import_module(f"src.{package}"))
        for statement in ast.parse((folder / "__init__.py").read_text()).body:
            if isinstance(statement, ast.ImportFrom):
                path = folder / f"{(statement.module or '').replace('.', '/')}.py"
                for alias in statement.names:
                    node, doc = definition(path, alias.name)
                    found.append(Public(alias.name, path, node, namespace[alias.name], doc))
    return found


def definition(path: Path, name: str) -> tuple[ast.AST, str]:
    """The class, function or assignment of a name, and its docstring: after an assignment, a string of its own."""
    body = ast.parse(path.read_text()).body
    for index, node in enumerate(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node, ast.get_docstring(node) or ""
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            behind = body[index + 1] if index + 1 < len(body) else None
            value = behind.value if isinstance(behind, ast.Expr) else None
            return node, inspect.cleandoc(value.value) if isinstance(value, ast.Constant) else ""
    raise AssertionError(f"expected a definition of {name} in {path}")


NAMES = public_names()


def section(doc: str, *titles: str) -> str:
    """The text of the sections of these titles, empty if there are none."""
    parts = re.split(rf"^({'|'.join(SECTIONS)}):", doc, flags=re.MULTILINE)
    return "\n".join(text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title in titles)


def parameters(public: Public) -> list[str]:
    """The parameters that a caller sees."""
    if not isinstance(public.node, ast.FunctionDef | ast.ClassDef):
        return []
    if "__init__" in vars(public.value) or isinstance(public.node, ast.FunctionDef) or "_fields" in dir(public.value):
        return [name for name in inspect.signature(public.value).parameters if name not in ("args", "kwargs")]
    return []  # the constructor is that of a documented base


def problems(public: Public) -> list[str]:
    """What a docstring lacks, in words."""
    doc, found = public.doc, []
    if not doc:
        return ["a docstring"]
    if ">>> " not in section(doc, "Example"):
        found.append("an Example: with >>>")
    documented = section(doc, "Args", "Attributes")
    missing = [name for name in parameters(public) if not re.search(rf"\b{name}\b[\w ,]*:", documented)]
    if missing:
        found.append(f"Args: {', '.join(missing)}")
    if raises(public.node) and not section(doc, "Raises", "Warns"):
        found.append("Raises:")
    if isinstance(public.value, type) and issubclass(public.value, torch.nn.Module):
        bases = public.value.__mro__[: public.value.__mro__.index(torch.nn.Module)]
        if not any(re.search(r"\(B,|of shape \(", base.__doc__ or "") for base in bases):
            found.append("a shape (B, …)")
    return found


def raises(node: ast.AST) -> bool:
    """Whether the code of a name refuses something, by itself or by a shared check."""
    for part in ast.walk(node):
        if isinstance(part, ast.Raise) and part.exc is not None and "NotImplementedError" not in ast.unparse(part.exc):
            return True
        if isinstance(part, ast.Call) and CHECKS.fullmatch(ast.unparse(part.func)):
            return True
    return False


def test_every_public_name_is_documented() -> None:
    lacking = {public.name: problems(public) for public in NAMES}
    report = [
        f"{public.path.relative_to(ROOT)}: {public.name} lacks {'; '.join(lacking[public.name])}"
        for public in NAMES
        if lacking[public.name]
    ]
    assert not report, "\n" + "\n".join(report)


@pytest.mark.parametrize(
    "public",
    # FrEIA takes seconds to import.
    [
        slow(public, id=public.name) if public.name == "FreiaModule" else pytest.param(public, id=public.name)
        for public in NAMES
    ],
)
def test_the_example_runs(public: Public) -> None:
    # What the pages of docs/ say that the examples start from.
    names = {other.name: other.value for other in NAMES}
    torch.manual_seed(0)
    example = doctest.DocTestParser().get_doctest(
        textwrap.dedent(public.doc), {"torch": torch, "np": np, **names}, public.name, str(public.path), 0
    )
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not report, "".join(report)


def test_every_module_with_public_names_is_on_one_page() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.rst"))
    shown = re.findall(r"automodule:: invertible_imaging\.(\S+)", pages)
    modules = {".".join(public.path.relative_to(ROOT / "src").with_suffix("").parts) for public in NAMES}
    missing, unknown = modules - set(shown), set(shown) - modules
    assert not missing and not unknown and len(shown) == len(set(shown)), f"missing: {missing}, unknown: {unknown}"
