"""Learning a transform that makes images sparse."""

from typing import Any

import torch
from torch import Tensor

from src.invertible import Downsampling, haar_matrix
from src.tasks.base import Batch, Task
from src.tasks.batch_checks import Images
from src.tasks.channel_mixing import METHODS, unmixing_mse
from src.tasks.data_attributes import check_attributes
from src.tasks.metrics import TASK_METRICS


class Sparsity(Task):
    """Minimises the mean absolute value of downsampled images, ``‖D x‖₁ / n``, where D is learned.

    D is orthogonal, so it can only make a representation sparser, not smaller (iUNet paper, figure 4). It is compared
    with the pixel shuffle, whose value is ``‖x‖₁ / n``, and the Haar transform, on the same images.

    Batches are dicts: "image" of shape (B, 1, *spatial), "index" of shape (B,).
    """

    metrics = TASK_METRICS["sparsity"]
    net_type = Downsampling
    net: Downsampling

    def check_data(self, datamodule: Any) -> None:
        """Transform one empty image.

        Raises:
            ValueError: if the transform has several channels, or does not take the data's images.
        """
        if self.net.channels != 1:
            raise ValueError(f"expected a Downsampling of one channel, got {self.net}")
        check_attributes(datamodule, "images", "sample_shape")
        shape = tuple(datamodule.sample_shape)
        self.probe(self.net, shape)
        self.fields = {"image": Images(shape)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean absolute value."""
        return {"loss": self(batch["image"]).abs().mean()}

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the mean absolute values of the learned transform, the pixel shuffle and the Haar transform."""
        image, stride = batch["image"], self.net.stride
        haar = Downsampling(1, stride, spatial_dims=len(stride), init="haar", learnable=False).to(image)
        coefficients = {"loss": self(image), "pixel_shuffle": image, "haar": haar(image)}
        return {name: value.abs().flatten(1).mean(1) for name, value in coefficients.items()}, {}

    def haar_overlap(self) -> Tensor:
        """Return the largest ``|⟨a, h⟩|`` of each learned filter a with a Haar filter h."""
        stride = self.net.stride
        haar = haar_matrix(stride).to(self.device, torch.float32)
        filters = self.net.matrices()[0].detach()  # (σ, σ), one in each row
        return (filters @ haar.T).abs().amax(dim=1)

    def on_test_epoch_end(self) -> None:
        """Log the smallest overlap with a Haar filter as well, and the errors of the channel-mixing tutorial."""
        super().on_test_epoch_end()
        self.log("test/haar_overlap", self.haar_overlap().min())
        for method in METHODS:
            self.log(f"test/unmixing_mse_{method}", unmixing_mse(method))
