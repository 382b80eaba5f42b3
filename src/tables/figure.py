"""Draw the published numbers and ours as pairs of dots."""

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.tables.numbers import heading
from src.tables.table import Table

TITLE_CHARACTERS_PER_INCH = 10
# A panel whose numbers span more than this factor has a logarithmic axis.
LINEAR_RANGE = 50


def draw(table: Table) -> Figure:
    """Draw one panel per metric with a line per table row: filled dots are our numbers, rings the paper's."""
    groups = _panels(table)
    figure = Figure(figsize=(1.5 + 4.2 * len(groups), 2.0 + 0.42 * len(table.labels)), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axes, columns in zip(panels, groups, strict=True):
        _draw_panel(axes, table, columns)
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    panels[0].set_yticks(range(len(table.labels)), [", ".join(label) for label in table.labels])
    panels[0].set_ylabel(", ".join(table.published.head))
    panels[0].invert_yaxis()
    title = f"{table.published.title} ({', '.join([table.scale, *table.changes])})"
    width = int(TITLE_CHARACTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle(textwrap.fill(title, width, max_lines=4, placeholder=" …"), fontsize=11)
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles))
    return figure


def _panels(table: Table) -> list[list[int]]:
    """The columns of each panel: all columns of a metric, or a single difference column."""
    groups: dict[object, list[int]] = {}
    for j, column in enumerate(table.published.columns):
        groups.setdefault(column.metric or ("difference", j), []).append(j)
    return list(groups.values())


def _draw_panel(axes: Axes, table: Table, columns: list[int]) -> None:
    axes.set_xlabel(_shared_words(table, columns))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for k, j in enumerate(columns):
        color, offset = f"C{k}", 0.16 * (k - (len(columns) - 1) / 2)
        name = _own_words(table, j, columns)
        for i, row in enumerate(table.entries):
            entry, y = row[j], i + offset
            if entry.published is not None and entry.measured is not None:
                axes.plot([entry.published, entry.measured.mean], [y, y], color=color, alpha=0.35, zorder=1)
            if entry.published is not None:
                axes.plot(entry.published, y, "o", mfc="white", mec=color, label=f"{name}published")
            if entry.measured is not None:
                deviation = entry.measured.deviation
                axes.errorbar(entry.measured.mean, y, xerr=deviation, fmt="o", color=color, label=f"{name}here")
    numbers = [row[j].number(ours) for row in table.entries for j in columns for ours in (True, False)]
    known = [number for number in numbers if number is not None]
    if known and min(known) > 0 and max(known) > LINEAR_RANGE * min(known):
        axes.set_xscale("log")
    axes.grid(alpha=0.3)


def _shared_words(table: Table, columns: list[int]) -> str:
    """The words common to the columns: "PSNR (dB)" for "U-Net PSNR (dB)" and "iUNet PSNR (dB)"."""
    names = [heading(table.published.columns[j]).split() for j in columns]
    return " ".join(word for word in names[0] if all(word in name for name in names))


def _own_words(table: Table, column: int, columns: list[int]) -> str:
    """The words of one column only: "U-Net, " for "U-Net PSNR (dB)" beside "iUNet PSNR (dB)"; empty for one column."""
    shared = _shared_words(table, columns).split()
    own = " ".join(word for word in heading(table.published.columns[column]).split() if word not in shared)
    return f"{own}, " if own else ""
