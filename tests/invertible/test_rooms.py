"""The arrows between the rooms of the library, and what it imports of others."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import src.invertible

LIBRARY = Path(src.invertible.__file__).parent

# Which rooms and files a room may import besides itself.
ARROWS: dict[str, set[str]] = {
    "arguments": set(),
    "cached_weights": set(),
    "export": set(),
    "extras": set(),
    "log_determinants": set(),
    "onnx_operations": set(),
    "module": {"cached_weights", "export", "log_determinants"},
    "composites": {"module"},
    "left_as_found": {"module"},
    "shapes": {"composites", "left_as_found", "module"},
    "engine": {"arguments", "composites", "extras", "module"},
    "layers": {"arguments", "composites", "export", "log_determinants", "module", "onnx_operations", "engine"},
    "on_conditions": {"composites", "module", "shapes", "engine"},
    "graph": {"composites", "module", "shapes", "engine", "on_conditions"},
    "compilation": {"arguments", "layers", "module"},
    "freia_autocast": {"engine", "module"},
    "freia_parts": {"log_determinants"},
    "freia_couplings": {"engine", "layers", "module"},
    "interop": {"engine", "log_determinants", "module", "shapes", "freia_autocast", "freia_couplings", "freia_parts"},
    "inspection": {"composites", "extras", "left_as_found", "module", "shapes", "engine", "graph"},
}


def imported_rooms(path: Path) -> set[str]:
    """The rooms from which a file of the library imports, relatively as it must."""
    depth, rooms = len(path.relative_to(LIBRARY).parts), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level < depth and not (node.module or "").startswith("src"), f"{path.name}: {ast.unparse(node)}"
    return rooms


@pytest.mark.parametrize("room", ARROWS)
def test_arrows_point_downwards(room: str) -> None:
    files = [LIBRARY / f"{room}.py"] if (LIBRARY / f"{room}.py").exists() else list((LIBRARY / room).glob("*.py"))
    for path in files:
        assert imported_rooms(path) <= ARROWS[room] | {room}, path.name


def test_every_file_has_its_room() -> None:
    found = {path.stem for path in LIBRARY.glob("*.py")} | {path.parent.name for path in LIBRARY.glob("*/*.py")}
    assert found - {"__init__"} == set(ARROWS)


def imported(program: str, names: set[str]) -> set[str]:
    """Which of these packages a program has imported at its end."""
    program += f"\nimport sys; print(' '.join({names} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_library_and_models_know_no_lightning_hydra_or_wandb() -> None:
    program = (
        "import pkgutil, importlib, src.invertible, src.models\n"
        "for package in (src.invertible, src.models):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name != 'src.invertible.engine.memcnn_policy':\n"
        "            importlib.import_module(module.name)\n"
    )
    assert imported(program, {"lightning", "pytorch_lightning", "hydra", "wandb", "memcnn"}) == set()


def test_the_library_imports_plotting_and_foreign_layers_only_where_they_are_asked_for() -> None:
    program = "import src.invertible, src.invertible.inspection"
    assert imported(program, {"matplotlib", "memcnn", "torchvision", "FrEIA"}) == set()
