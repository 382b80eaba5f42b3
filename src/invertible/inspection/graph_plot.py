"""A graph of invertible layers as a picture."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import extra
from ..graph import GraphNet, Wire
from ..shapes import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Point = tuple[float, float]

BOX = (2.4, 1.3)  # inches from one box to the next, to the right and down


def plot_graph(net: GraphNet, path: str | Path | None = None) -> Figure:
    """Draw the graph from left to right: inputs, parts, outputs, with conditions below; arrows carry the shapes.

    The picture is saved to ``path``, if one is given, in the format of its suffix (PNG without one).
    """
    labels, arrows = _boxes_and_arrows(net)
    positions = _positions(list(labels), arrows)
    width = 1 + max(x for x, _ in positions.values())
    height = 1 + max(y for _, y in positions.values()) - min(y for _, y in positions.values())
    with extra("plots"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(BOX[0] * width, BOX[1] * height + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    frames = {}
    sources = {wire.node for wire in (*net.inputs, *net.conditions)}
    for box, label in labels.items():
        kind = "input" if box in sources else "output" if box.startswith("→") else "part"
        colour = {"input": "#dbe9f6", "output": "#e2f0d9", "part": "#ffffff"}[kind]
        x, y = positions[box]
        text = axes.text(
            x, y, label, ha="center", va="center", fontsize=8, bbox={"boxstyle": "round,pad=0.5", "facecolor": colour}
        )
        frames[box] = text.get_bbox_patch()
    for source, target, wire in arrows:
        _draw_arrow(axes, positions[source], positions[target], wire, (frames[source], frames[target]))
    axes.set_xlim(-0.6, width - 0.4)
    axes.set_ylim(min(y for _, y in positions.values()) - 0.6, max(y for _, y in positions.values()) + 0.6)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _boxes_and_arrows(net: GraphNet) -> tuple[dict[str, str], list[tuple[str, str, Wire]]]:
    labels = {wire.node: str(wire) for wire in net.inputs}
    labels |= {wire.node: f"{wire}\n{show([wire.shape])}" for wire in net.conditions}
    arrows = []
    for node in net.nodes:
        labels[node.name] = f"{node.name}\n{net.kind(node)}"
        arrows += [(wire.node, node.name, wire) for wire in (*node.inputs, *node.conditions)]
    for number, wire in enumerate(net.outputs):
        box = f"→{number}"  # no identifier, hence the name of no node
        labels[box] = f"output {number}"
        arrows.append((wire.node, box, wire))
    return labels, arrows


def _positions(boxes: list[str], arrows: list[tuple[str, str, Wire]]) -> dict[str, Point]:
    """Columns by the longest way from an input, each in the order of the boxes; conditions in a row below the rest."""
    column: dict[str, int] = dict.fromkeys(boxes, 0)
    for source, target, _ in arrows:  # sorted by target, sources first: one pass is enough
        column[target] = max(column[target], column[source] + 1)
    conditions = list(dict.fromkeys(source for source, _, wire in arrows if wire.is_condition))
    members: dict[int, list[str]] = defaultdict(list)
    for box in boxes:
        if box not in conditions:
            members[column[box]].append(box)
    positions = {
        box: (float(x), (len(stack) - 1) / 2 - row) for x, stack in members.items() for row, box in enumerate(stack)
    }
    bottom = min(y for _, y in positions.values()) - 1
    return positions | {box: (number + 0.5, bottom) for number, box in enumerate(conditions)}


def _draw_arrow(axes: Axes, start: Point, end: Point, wire: Wire, frames: tuple[Patch | None, Patch | None]) -> None:
    """An arrow between the frames of two boxes, bent downwards around those between them."""
    bend = 0.15 if end[0] - start[0] > 1 else 0.0
    style: dict[str, Any] = {
        "arrowstyle": "->",
        "linestyle": ":" if wire.is_condition else "-",
        "shrinkA": 0,
        "shrinkB": 0,
    }
    style |= {"connectionstyle": f"arc3,rad={bend}", "patchA": frames[0], "patchB": frames[1]}
    axes.annotate("", end, start, arrowprops=style)
    if wire.is_condition:
        return  # its box says its shape
    # The middle of the arc, which ``rad`` measures in units of its length on the page.
    lowered = bend / 2 * (end[0] - start[0]) * BOX[0] / BOX[1]
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - lowered + 0.08)
    axes.text(*middle, show([wire.shape]), ha="center", va="bottom", fontsize=6, color="#555555")
