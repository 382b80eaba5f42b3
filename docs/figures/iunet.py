"""Draws iunet.png: what an iUNet is, and what its two memory policies keep. Run: python docs/figures/iunet.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

COUPLINGS, MAPS, WAITING = "#0072b2", "#d55e00", "#8a939c"  # colours that colour-blind readers can tell apart
KEPT, DROPPED, INK = "#0072b2", "#ffffff", "#22272e"


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """A rounded box about (x, y) with white text."""
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.08", color=colour))
    axes.text(x, y, text, color="white", ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    """An arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=colour))


def draw_levels(axes: Axes) -> None:
    """Three levels: couplings, split, downsampling, the next level, upsampling, concatenation, couplings."""
    axes.set_title("An iUNet is a U-Net that is one bijection", fontsize=12, color=INK)
    sizes = ["C channels, N voxels", "2C channels, N/4 voxels", "4C channels, N/16 voxels"]
    heights = [4.0, 2.0, 0.0]
    for level, (y, size) in enumerate(zip(heights, sizes, strict=True)):
        left, right = 1.0 + 1.6 * level, 9.0 - 1.6 * level
        if level < 2:
            box(axes, left, y, 1.2, 0.66, "couplings", COUPLINGS)
            box(axes, right, y, 1.2, 0.66, "couplings", COUPLINGS)
            arrow(axes, (left + 0.6, y), (right - 0.6, y), WAITING)
            waiting = "half of the channels waits" if level == 0 else "half waits"
            axes.text(5, y + 0.12, waiting, color=WAITING, ha="center", fontsize=9)
            below = heights[level + 1]
            arrow(axes, (left + 0.75, y - 0.02), (left + 1.5, below + 0.36), MAPS)
            arrow(axes, (right - 1.5, below + 0.36), (right - 0.75, y - 0.02), MAPS)
            axes.text(left + 0.98, y - 1.1, "split,\ndownsample", color=MAPS, ha="right", va="center", fontsize=9)
            axes.text(right - 0.98, y - 1.1, "upsample,\nconcatenate", color=MAPS, ha="left", va="center", fontsize=9)
        else:
            box(axes, 5, y, 2.8, 0.66, "couplings", COUPLINGS)
        axes.text(5, y - 0.16 if level < 2 else y - 0.5, size, color=INK, ha="center", va="top", fontsize=9)
    arrow(axes, (-0.1, 4), (0.36, 4))
    arrow(axes, (9.64, 4), (10.1, 4))
    axes.text(-0.2, 4, "x", color=INK, ha="right", va="center", fontsize=12, style="italic")
    axes.text(10.2, 4, "y", color=INK, ha="left", va="center", fontsize=12, style="italic")
    axes.text(
        5,
        -1.35,
        "2D.  Coupling:  $y_1 = x_1,\\;\\; y_2 = x_2 + F(x_1)$      Down- and upsampling: learned orthogonal matrices",
        color=INK,
        ha="center",
        fontsize=9.5,
    )
    axes.set_xlim(-0.7, 10.7)
    axes.set_ylim(-1.6, 4.6)


def draw_states(axes: Axes, y: float, title: str, kept: list[bool], inside: bool) -> None:
    """The states between the layers, filled where kept, with what F keeps inside its layer below."""
    axes.text(0, y + 0.75, title, color=INK, fontsize=10.5)
    last = len(kept) - 1
    for index, is_kept in enumerate(kept):
        x = 1.25 * index
        axes.add_patch(Rectangle((x, y), 0.5, 0.5, facecolor=KEPT if is_kept else DROPPED, edgecolor=INK))
        if index < last:
            arrow(axes, (x + 0.53, y + 0.36), (x + 1.22, y + 0.36))
            if inside:
                for part in range(2):
                    corner = (x + 0.66 + 0.24 * part, y - 0.02)
                    axes.add_patch(Rectangle(corner, 0.2, 0.2, facecolor=KEPT, edgecolor=INK, linewidth=0.8))
            else:
                arrow(axes, (x + 1.22, y + 0.12), (x + 0.53, y + 0.12), MAPS)
        label = {0: "x", last: "y"}.get(index)
        if label:
            axes.text(x + 0.25, y - 0.12, label, color=INK, ha="center", va="top", fontsize=12, style="italic")


def draw_policies(axes: Axes) -> None:
    """What the graph keeps under the policies stored and reversible."""
    axes.set_title("What is kept (blue) for the backward pass", fontsize=12, color=INK)
    draw_states(axes, 3.05, "stored: every state, and what F keeps inside", [True] * 6, inside=True)
    axes.text(3.4, 2.42, "memory grows with the depth", color=KEPT, ha="center", fontsize=9.5)
    draw_states(axes, 0.6, "reversible: the output", [False] * 5 + [True], inside=False)
    axes.text(
        3.4,
        -0.28,
        "backward rebuilds each input:  $x_2 = y_2 - F(y_1)$\nthe same memory for any depth, one more pass through F",
        color=MAPS,
        ha="center",
        va="top",
        fontsize=9.5,
    )
    axes.set_xlim(-0.3, 7.1)
    axes.set_ylim(-1.6, 4.6)


def main() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12.6, 4.4), width_ratios=[1.35, 1], layout="constrained")
    draw_levels(left)
    draw_policies(right)
    for axes in (left, right):
        axes.axis("off")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
