"""How long a layer takes, over channels and image size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.invertible import FourierConvolution, logabsdet, spectrum
from src.tasks.base import Batch, Report, Task
from src.tasks.sample_table import SampleTable

OPERATIONS = ("convolution", "fourier", "logdet", "inverse")


class ConvolutionRuntime(Task):
    """Measures a circular convolution: forward, log-determinant, inverse, beside torch's own convolution.

    Nothing is trained. Batches are dicts of "channels", "size" and "index", one cell of a grid each. Columns are
    medians in milliseconds for a batch of images of ``channels × size × size``: "convolution" (torch's), "fourier" (the
    layer's forward), "logdet" (``log|det dy/dx|`` alone) and "inverse".

    Args:
        net: gives kernel size and number of spatial dimensions.
        batch_size: images per measurement; the poster has 32.
        repeats: of each measurement, after one that does not count.
        kwargs: of `Task`.

    Raises:
        ValueError: for another layer, or numbers below 1.
    """

    net: FourierConvolution

    def __init__(self, net: nn.Module, *args: Any, batch_size: int = 32, repeats: int = 5, **kwargs: Any) -> None:
        if not isinstance(net, FourierConvolution):
            raise ValueError(f"expected a FourierConvolution, got {type(net).__name__}")
        if batch_size < 1 or repeats < 1:
            raise ValueError(f"expected positive batch_size and repeats, got {batch_size} and {repeats}")
        super().__init__(net, *args, **kwargs)
        self.batch_size = batch_size
        self.repeats = repeats

    def check_data(self, datamodule: Any) -> None:
        """Refuse data that are no grid.

        Raises:
            ValueError: for those.
        """
        if not hasattr(datamodule, "cells"):
            raise ValueError(f"expected a grid of sizes, got {type(datamodule).__name__}")

    def columns(self, stage: str) -> Sequence[str]:
        """Return the cell, then the operations."""
        return ("channels", "size", *OPERATIONS)

    @torch.no_grad()
    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Measure one cell."""
        channels, size = int(batch["channels"]), int(batch["size"])
        dims, kernel = len(self.net.kernel_size), self.net.kernel_size
        layer = FourierConvolution(channels, kernel, spatial_dims=dims).to(self.device)
        images = torch.randn(self.batch_size, channels, *[size] * dims, device=self.device)
        plain = _plain_convolution(channels, kernel).to(self.device)
        times = {
            "convolution": self._median_ms(lambda: plain(images)),
            "fourier": self._median_ms(lambda: layer(images)),
            # Alone: it is the same for all images.
            "logdet": self._median_ms(lambda: logabsdet(spectrum(layer.weight, images.shape[2:]), size)),
            "inverse": self._median_ms(lambda: layer.inverse(images)),
        }
        cell = {"channels": batch["channels"], "size": batch["size"]}
        return cell | {name: torch.tensor([value], device=self.device) for name, value in times.items()}, {}

    def summarise_table(self, table: SampleTable, stage: str) -> dict[str, float]:
        """Return the milliseconds at the largest cell: a mean over the grid says nothing."""
        return {f"{name}_ms": table.column(name).max().item() for name in OPERATIONS}

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return the table."""
        if not self.test_table:
            return None
        rows = [
            [f"{row['channels']:.0f}", f"{row['size']:.0f}", *(f"{row[name]:.2f}" for name in OPERATIONS)]
            for row in self.test_table
        ]
        return Report(["channels", "size", *(f"{name} (ms)" for name in OPERATIONS)], rows)

    def _median_ms(self, operation: Callable[[], Any]) -> float:
        operation()
        times = []
        for _ in range(self.repeats):
            self._wait()
            started = time.perf_counter()
            operation()
            self._wait()
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _plain_convolution(channels: int, kernel_size: Sequence[int]) -> nn.Module:
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(kernel_size)]
    return convolution(channels, channels, tuple(kernel_size), padding="same")  # type: ignore[arg-type]
