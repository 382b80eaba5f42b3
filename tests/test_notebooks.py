"""The notebooks: what is committed has outputs and no traces of a machine; every one runs from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import train
from tests.image_files import write_mnist
from tests.tiny_experiments import EPOCHS, SIZES

pytest.importorskip("nbclient", reason="the notebooks run with requirements-dev.txt")
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from notebooks.execute import FOLDER, clean, execute, parameter_cell, parameters_of, read

ROOT = Path(train.__file__).parent
PATHS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 400_000
SHOWS = re.compile(r"\b(print|display|plt\.show)\(")
ABSOLUTE_PATH = re.compile(r"(?<![\w.<:/])/[\w.-]+/[\w.-]+|\b[A-Z]:\\|file://")

TINY: dict[str, dict[str, Any]] = {
    "channel_mixing": {"SIZE": 16, "STEPS": 3, "NUM_MATRICES": 4},
    "flows": {"NUM_STEPS": 2, "BATCH_SIZE": 8, "HIDDEN": 4, "RESOLUTION": 8},
    "irevnet_lab": {"NUM_TRAIN": 40, "NUM_TEST": 20, "EPOCHS": 1, "VERIFY_CHECKSUMS": False},
    "iunet_on_your_volumes": {"CROP": 16, "CHANNELS": (4, 8), "NUM_COUPLINGS": 1, "STEPS": 2, "DEPTHS": (1, 2)},
}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown_texts(notebook: NotebookNode) -> list[str]:
    """Sources and printed texts, without pictures, whose bytes look like anything."""
    texts = [cell.source for cell in notebook.cells]
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        texts.append(output.get("text", ""))
        texts += [str(data) for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    return texts


def test_every_notebook_is_small_and_linked_and_has_a_tiny_size() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in PATHS} == TINY.keys()
    for path in PATHS:
        assert f"(notebooks/{path.name})" in readme
        assert path.stat().st_size < MAX_BYTES


@each_notebook
def test_committed_outputs_are_complete_and_clean(path: Path) -> None:
    notebook = read(path)
    assert TINY[path.stem].keys() <= parameters_of(notebook).keys()
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number
        assert bool(cell.outputs) or not SHOWS.search(_without_definitions(cell.source)), cell.source
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs)
    assert any("image/png" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)
    assert [match[0] for text in shown_texts(notebook) if (match := ABSOLUTE_PATH.search(text))] == []
    clean(notebook)
    assert read(path) == notebook, "run notebooks/execute.py, which removes metadata and stderr"


def _without_definitions(source: str) -> str:
    """The lines of a cell that run at once, not in a function or class."""
    return re.sub(r"^(?:def|class) .*(?:\n(?:[ \t].*)?)*", "", source, flags=re.MULTILINE)


def test_absolute_paths_are_found() -> None:
    for text in ("/home/me/data", "in '/work/x.py'", r"C:\Users", "file:///tmp"):
        assert ABSOLUTE_PATH.search(text)
    for text in ("outputs/irevnet_lab/run", "https://github.com/vislearn/FrEIA", "</pre>\n", "‖x − y‖ / ‖x‖", "1/2/3"):
        assert not ABSOLUTE_PATH.search(text)


def test_parameters_are_in_the_first_code_cell_alone() -> None:
    tagged = new_code_cell("SIZE = 2\nNAMES = ('a', 'b')", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), tagged, new_code_cell("print(SIZE)")])
    assert parameter_cell(notebook) == 1
    assert parameters_of(notebook) == {"SIZE": 2, "NAMES": ("a", "b")}
    with pytest.raises(ValueError, match=r"expected parameters among SIZE, NAMES, got SIZES"):
        execute(notebook, {"SIZES": 3})
    notebook.cells.insert(1, new_code_cell("import os"))
    with pytest.raises(ValueError, match=r"expected the tag 'parameters' at the first code cell \(1\), got .*\[2\]"):
        parameter_cell(notebook)


@pytest.mark.notebook
@each_notebook
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    parameters = TINY[path.stem]
    if path.stem == "irevnet_lab":
        data_dir = write_mnist(tmp_path / "data")
        options = [*EPOCHS, *SIZES["irevnet_lab"], "datamodule.verify_checksums=false", f"run_dir={tmp_path / 'run'}"]
        parameters = parameters | {"DATA_DIR": str(data_dir), "TRAIN_PY_OPTIONS": options}
    if path.stem == "iunet_on_your_volumes":
        parameters = parameters | {"DATA_DIR": str(tmp_path / "pairs")}
    committed = read(path)
    executed = execute(read(path), parameters, timeout_s=300)
    # The same cells have outputs of the same kinds at any size.
    kinds = [[[output.output_type for output in cell.outputs] for cell in code_cells(n)] for n in (executed, committed)]
    assert kinds[0] == kinds[1]
    assert [cell.source for cell in executed.cells] == [cell.source for cell in committed.cells]
