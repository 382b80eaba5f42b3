"""Write a table as Markdown, LaTeX and a figure into the folder of the results, and into its README."""

from collections.abc import Sequence
from pathlib import Path

from src.sweeps.cell import Cell
from src.sweeps.plan import Plan
from src.tables.markdown import to_excerpt, to_markdown
from src.tables.published import Published
from src.tables.readme import fill
from src.tables.results import load
from src.tables.table import make_table
from src.utils.files import atomic_write, write_text


def render(published: Published, folder: Path, plan: Plan, cells: Sequence[Cell] | None = None) -> list[str]:
    """Write ``table.md``, ``table.tex`` and ``figure.png`` from the results in a folder, one JSON file per run.

    A README two folders above that has a place for these results, see `fill`, gets an excerpt.

    Returns:
        The names of results that were left out because they are of none of the cells, see `load`.
    """
    from src.tables.figure import draw
    from src.tables.latex import to_latex

    results, outdated = load(folder, cells)
    table = make_table(published, results, plan.scale, plan.changes)
    write_text(folder / "table.md", to_markdown(table, plan.command))
    write_text(folder / "table.tex", to_latex(table))
    with atomic_write(folder / "figure.png") as file:
        draw(table).savefig(file, format="png", dpi=110)
    readme = folder.parents[1] / "README.md"
    if readme.is_file():
        fill(readme, folder.name, to_excerpt(table))
    return outdated
