"""Learning a transform that makes images sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.invertible import Downsampling, haar_matrix
from src.tasks.base import Batch, Report, Task


class Sparsity(Task):
    """Minimises the mean absolute value of what a learned downsampling makes of images, ``‖D x‖₁ / n``.

    The transform is orthogonal, so it can only make a representation sparser, not smaller (iUNet paper, figure 4).
    Judged beside the pixel shuffle, whose value is ``‖x‖₁ / n``, and the Haar transform, by the same images.

    Batches are dicts: "image" of shape (B, 1, *spatial), "index" of shape (B,).

    Raises:
        ValueError: unless the network is a `Downsampling` of one channel.
    """

    net: Downsampling

    def __init__(self, net: nn.Module, *args: Any, **kwargs: Any) -> None:
        if not isinstance(net, Downsampling) or net.channels != 1:
            raise ValueError(f"expected a Downsampling of one channel, got {net}")
        super().__init__(net, *args, **kwargs)
        self.haar = Downsampling(1, net.stride, spatial_dims=len(net.stride), init="haar", learnable=False)

    def check_data(self, datamodule: Any) -> None:
        """Transform one empty image.

        Raises:
            ValueError: if the transform does not take the data's images.
        """
        shape = getattr(datamodule, "sample_shape", None)
        if shape is None:
            raise ValueError(f"expected a datamodule of images, got {type(datamodule).__name__}")
        self.probe(self.net, shape)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean absolute value."""
        return {"loss": self(batch["image"]).abs().mean()}

    def columns(self, stage: str) -> Sequence[str]:
        """Return the mean absolute values of the learned transform, pixel shuffle and Haar."""
        return ("loss", "pixel_shuffle", "haar")

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the columns."""
        image = batch["image"]
        coefficients = {"loss": self(image), "pixel_shuffle": image, "haar": self.haar(image)}
        return {name: value.abs().flatten(1).mean(1) for name, value in coefficients.items()}, {}

    def haar_overlap(self) -> Tensor:
        """Return, for each learned filter, its largest ``|⟨a, h⟩|`` with a Haar filter: 1 where it is one."""
        stride = self.net.stride
        haar = haar_matrix(stride).to(self.device, torch.float32)
        return (filters(self.net) @ haar.T).abs().amax(dim=1)

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return the three mean absolute values, and how near the filters are to Haar's."""
        if metrics.get("test/loss") is None:
            return None
        names = {"pixel shuffle": "test/pixel_shuffle", "learned": "test/loss", "Haar": "test/haar"}
        rows = [[f"‖Dx‖₁ / n, {label}", f"{metrics[key]:.4f}"] for label, key in names.items()]
        rows.append(["|⟨learned, Haar⟩| per filter", ", ".join(f"{v:.3f}" for v in self.haar_overlap().tolist())])
        return Report(["", "test set"], rows)

    def on_test_epoch_end(self) -> None:
        """Log the smallest overlap with Haar's filters too."""
        super().on_test_epoch_end()
        self.log("test/haar_overlap", self.haar_overlap().min())


def filters(downsampling: Downsampling) -> Tensor:
    """Return the filters of a downsampling of one channel as the rows of a matrix (σ, σ)."""
    return downsampling.matrices()[0].detach()
