"""The packages of src import downwards only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
# From the bottom up. A package imports those in the lines before its own.
LAYERS = (
    ("utils",),
    ("config", "invertible", "loggers"),
    ("ct", "models"),
    ("datamodules", "tasks"),
    ("runs",),
    ("callbacks", "compare", "sweeps"),
    ("tables",),
)
HEIGHTS = {package: height for height, layer in enumerate(LAYERS) for package in layer}


def imports(path: Path) -> Iterator[str]:
    """The absolute names of the modules that a file of src imports anywhere, also inside of functions."""
    package = ("src", *path.relative_to(SRC).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
            name = ".".join(parts) if node.level else node.module or ""
            yield from (f"{name}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", HEIGHTS)
def test_a_package_imports_only_those_below_it(package: str) -> None:
    wrong = []
    for path in sorted((SRC / package).rglob("*.py")):
        for name in imports(path):
            root, _, inside = name.partition(".")
            other = inside.partition(".")[0]
            if root == "src" and other != package and HEIGHTS[other] >= HEIGHTS[package]:
                wrong.append(f"{path.relative_to(SRC)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_package_has_its_place() -> None:
    assert {path.parent.name for path in SRC.glob("*/__init__.py")} == set(HEIGHTS)


def test_imports_of_every_form_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    path = tmp_path / "models" / "net.py"
    path.parent.mkdir()
    path.write_text(
        "import src.runs\nfrom src import tasks\nfrom ..invertible.shapes import show\nfrom .blocks import a\n"
    )
    assert list(imports(path)) == ["src.runs", "src.tasks", "src.invertible.shapes.show", "src.models.blocks.a"]
