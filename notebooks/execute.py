"""Execute notebooks and keep their outputs: ``python notebooks/execute.py [<name> ...] [PARAMETER=<value> ...]``.

Without a name, all of them. The values replace those of each notebook's first code cell while it runs, such as
``DATA_DIR=data/elsewhere``; they are not kept. Neither are metadata and what is printed to stderr.
"""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parent
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read(path: Path) -> NotebookNode:
    """Return a notebook with valid content; raise ValidationError for any other."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def parameter_cell(notebook: NotebookNode) -> int:
    """Return the place of the first code cell, which holds the parameters, and no other does.

    Raises:
        ValueError: unless that cell, and no other, has the tag ``parameters``.
    """
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    first = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), None)
    if tagged != [first]:
        raise ValueError(f"expected the tag 'parameters' at the first code cell ({first}), got it at cells {tagged}")
    return tagged[0]


def parameters_of(notebook: NotebookNode) -> dict[str, Any]:
    """Return the parameters of a notebook: the literals that its first code cell assigns to names."""
    body = ast.parse(notebook.cells[parameter_cell(notebook)].source).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


def execute(notebook: NotebookNode, parameters: Mapping[str, Any], timeout_s: int = 3600) -> NotebookNode:
    """Run a notebook in its folder, put the outputs into it, and return it.

    Args:
        parameters: values in place of those of the first code cell.
        timeout_s: for each cell.

    Raises:
        ValueError: for a name that is no parameter.
        CellExecutionError: with the traceback of a cell that fails.
    """
    unknown = sorted(parameters.keys() - parameters_of(notebook).keys())
    if unknown:
        raise ValueError(f"expected parameters among {', '.join(parameters_of(notebook))}, got {', '.join(unknown)}")
    place = parameter_cell(notebook) + 1
    notebook.cells.insert(place, new_code_cell("\n".join(f"{name} = {value!r}" for name, value in parameters.items())))
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name=KERNEL["name"],
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    try:
        return client.execute()
    finally:
        del notebook.cells[place]
        clean(notebook)


def clean(notebook: NotebookNode) -> None:
    """Number the code cells, and remove metadata and what is printed to stderr."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        cell.execution_count = number
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr" and not _is_empty(output)]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


def _is_empty(output: NotebookNode) -> bool:
    """Whether an output shows nothing, as the place of a progress bar that is gone."""
    return "data" in output and set(output.data) <= {"text/plain", "text/html"} and not output.data.get("text/plain")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def main(arguments: list[str]) -> None:
    """Run the command line."""
    parameters = {name: _value(text) for name, _, text in (a.partition("=") for a in arguments if "=" in a)}
    names = [a for a in arguments if "=" not in a] or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        notebook = execute(read(path), parameters)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
