"""A table beside the published one, as pairs of dots."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.tables.numbers import heading
from src.tables.table import Table


def draw(table: Table) -> Figure:
    """Draw one panel per metric: a line per row of the table, filled dots for our numbers, rings for the paper's."""
    groups = _panels(table)
    height = 1.6 + 0.42 * len(table.labels)
    figure = Figure(figsize=(1.5 + 4.2 * len(groups), height), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, columns in zip(panels, groups, strict=True):
        _draw_panel(axes, table, columns)
    names = ["\n".join(label) if len(label) == 1 else ", ".join(label) for label in table.labels]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylabel(", ".join(table.published.head))
    panels[0].invert_yaxis()
    figure.suptitle(f"{table.published.title} ({table.scale} scale)")
    return figure


def _panels(table: Table) -> list[list[int]]:
    """The columns of each panel: those of one metric, else one."""
    groups: dict[object, list[int]] = {}
    for j, column in enumerate(table.published.columns):
        groups.setdefault(column.metric or ("difference", j), []).append(j)
    return list(groups.values())


def _draw_panel(axes: Axes, table: Table, columns: list[int]) -> None:
    for k, j in enumerate(columns):
        color, offset = f"C{k}", 0.16 * (k - (len(columns) - 1) / 2)
        name = table.published.columns[j].name
        for i, row in enumerate(table.entries):
            entry, y = row[j], i + offset
            if entry.published is not None and entry.measured is not None:
                axes.plot([entry.published, entry.measured.mean], [y, y], color=color, alpha=0.35, zorder=1)
            if entry.published is not None:
                axes.plot(entry.published, y, "o", mfc="white", mec=color, label=f"{name}, published")
            if entry.measured is not None:
                deviation = entry.measured.deviation
                axes.errorbar(entry.measured.mean, y, xerr=deviation, fmt="o", color=color, label=f"{name}, here")
    axes.set_xlabel(_axis_label(table, columns))
    axes.grid(alpha=0.3)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if handles:
        axes.legend(handles.values(), handles.keys(), fontsize="small", loc="best")


def _axis_label(table: Table, columns: list[int]) -> str:
    names = [heading(table.published.columns[j]) for j in columns]
    # "U-Net PSNR (dB)", "iUNet PSNR (dB)": the words that they share.
    shared = [word for word in names[0].split() if all(word in name.split() for name in names)]
    return " ".join(shared) or names[0]
