"""Writing a table: Markdown, LaTeX and a figure beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from src.tables.markdown import to_markdown
from src.tables.published import Published
from src.tables.results import load
from src.tables.table import Table, make_table
from src.utils.files import atomic_write, write_text


def render(published: Published, folder: Path, scale: str, changes: Sequence[str], command: str) -> Table:
    """Write ``table.md``, ``table.tex`` and ``figure.png`` from the results in a folder; return the table.

    Args:
        published: the numbers.
        folder: with one JSON file per run.
        scale: of the runs.
        changes: what else makes them others than the sweep file's own.
        command: that makes the table.
    """
    from src.tables.figure import draw
    from src.tables.latex import to_latex

    table = make_table(published, load(folder), scale, changes)
    write_text(folder / "table.md", to_markdown(table, command))
    write_text(folder / "table.tex", to_latex(table))
    with atomic_write(folder / "figure.png") as file:
        draw(table).savefig(file, format="png", dpi=110)
    return table
