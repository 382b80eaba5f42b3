"""Draws a slice of a test volume as several runs reconstruct it, with enlarged details (iUNet paper, Figure 6).

Run: ``python docs/figures/reconstructions.py <picture.png> <test volume> <title>=<run folder> ...``

The numbers of the runs are written beside it, to ``<picture>.csv``.
"""

import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from src.runs import load_run
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.utils.files import write_csv

NUMBERS = ("num_parameters", "epochs", "steps", "seed", "step_time_s", "total_time_s", "git_commit")
DETAIL_COLOURS = ("#d55e00", "#009e73")  # colours that colour-blind readers can tell apart


def reconstructions(volume: int, runs: dict[str, str]) -> dict[str, Tensor]:
    """Return the filtered backprojection, each run's output and the truth, (N, N, N).

    Raises:
        ValueError: if the runs have different test volumes.
    """
    images: dict[str, Tensor] = {}
    for title, folder in runs.items():
        run = load_run(folder)
        run.datamodule.prepare_data()
        run.datamodule.setup("test")
        sample = run.datamodule.test_dataloader().dataset[volume]
        if images and not torch.equal(images["FBP"], sample["input"][0]):
            raise ValueError(f"expected runs with the same test volumes, got another one for {title}")
        images["FBP"] = sample["input"][0]
        with torch.inference_mode():
            images[title] = run.task.infer(sample["input"][None])[0, 0]
        truth = sample["target"][0]
    return images | {"truth": truth}


def details(truth: Tensor, side: int) -> list[tuple[int, int]]:
    """Return the first row and column of the windows whose truth has the most edges; they do not overlap."""
    edges = truth.diff(dim=0).abs()[:, :-1] + truth.diff(dim=1).abs()[:-1]
    amount = torch.nn.functional.avg_pool2d(edges[None], side - 1, stride=1)[0]
    corners = []
    for _ in DETAIL_COLOURS:
        row, column = divmod(int(amount.argmax()), amount.shape[1])
        corners.append((row, column))
        amount[max(0, row - side + 1) : row + side, max(0, column - side + 1) : column + side] = 0
    return corners


def draw(images: dict[str, Tensor]) -> Figure:
    """Draw the central slices, and below them two details; all in the window [0, 1]."""
    size = len(images["truth"])
    slices = {title: image[size // 2] for title, image in images.items()}
    corners = details(slices["truth"], side=size // 4)
    figure = Figure(figsize=(3.2 * len(images), 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 2 * len(images), height_ratios=[2, 1])
    for i, (title, image) in enumerate(slices.items()):
        axes = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        show(axes, image)
        axes.set_title(title if title == "truth" else f"{title}, {psnr(images[title], images['truth']):.2f} dB")
        for j, ((row, column), colour) in enumerate(zip(corners, DETAIL_COLOURS, strict=True)):
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, size // 4, size // 4, fill=False, color=colour, linewidth=2))
            detail = figure.add_subplot(grid[1, 2 * i + j])
            show(detail, image[row : row + size // 4, column : column + size // 4])
            detail.spines[:].set(color=colour, linewidth=3)
    return figure


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of the whole volume in dB."""
    return peak_signal_noise_ratio(image, truth, data_range=1.0)


def show(axes: Axes, image: Tensor) -> None:
    """Show a slice without ticks."""
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def numbers(folders: dict[str, str]) -> list[list[object]]:
    """Return the test's metrics and the costs of each run, below the names of the columns."""
    summaries = {title: read_summary(RunFolder(folder).summary) for title, folder in folders.items()}
    names = {name for summary in summaries.values() for name in summary["metrics"]}
    metrics = sorted(name for name in names if name.startswith("test/"))
    rows = [[t, *(s["metrics"].get(m) for m in metrics), *(s[key] for key in NUMBERS)] for t, s in summaries.items()]
    return [["network", *metrics, *NUMBERS], *rows]


def main(picture: str, volume: str, *runs: str) -> None:
    folders = dict(run.split("=", 1) for run in runs)
    images = reconstructions(int(volume), folders)
    draw(images).savefig(Path(picture), dpi=110, facecolor="white", metadata={"Software": None})
    write_csv(Path(picture).with_suffix(".csv"), numbers(folders))


if __name__ == "__main__":
    main(*sys.argv[1:])
