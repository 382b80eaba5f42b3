"""How many bits an image takes: exact likelihoods with normalizing flows."""

from typing import Any

from torch import Tensor

from src.models.density import DensityModel, LogLikelihood
from src.tasks.base import Batch, Task
from src.tasks.batch_checks import Images
from src.tasks.data_attributes import check_attributes
from src.tasks.metrics import TASK_METRICS
from src.utils.random_stream import own_stream

PARTS = LogLikelihood._fields


class Density(Task):
    """Minimises the bits per dimension of integer images, ``−log₂ p(k) / D`` for D numbers per image.

    Batches are dicts: "image" of shape (B, C, *spatial) with integers, "index" of shape (B,). The three terms of the
    likelihood (prior of the latent, log-determinant of flow and preprocessing, minus the log-density of the
    dequantisation noise) are logged separately, in bits per dimension. They sum to "bits_per_dim", which estimates an
    upper bound of the true value by one draw of the dequantisation noise per image.
    """

    metrics = TASK_METRICS["density"]
    net_type = DensityModel
    net: DensityModel

    def check_data(self, datamodule: Any) -> None:
        """Run one empty image through the flow.

        Raises:
            ValueError: if the data are not integers, or the flow does not take such images.
        """
        check_attributes(datamodule, "images", "sample_shape", "values")
        if datamodule.values != "integers":
            raise ValueError(
                f"expected a datamodule with values=integers for density estimation, got {datamodule.values!r}"
            )
        shape = tuple(datamodule.sample_shape)
        if shape != tuple(self.net.sample_shape):
            raise ValueError(f"expected a model for images of shape {shape}, got {tuple(self.net.sample_shape)}")
        latent = self.probe(self.net.encode, shape)
        if tuple(latent.shape[1:]) != self.net.latent_shape:
            raise ValueError(
                f"expected a flow that keeps the shape {self.net.latent_shape}, got {tuple(latent.shape[1:])}"
            )
        self.fields = {"image": Images(shape, integers=True)}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean bits per dimension and its parts."""
        bits = self._bits(batch["image"])
        return {"loss": bits["bits_per_dim"].mean(), **{name: bits[name].detach().mean() for name in PARTS}}

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the bits per dimension and their parts, with noise that the first index of the batch determines."""
        with own_stream(int(batch["index"][0]), self.device):
            return self._bits(batch["image"]), {}

    def _bits(self, images: Tensor) -> dict[str, Tensor]:
        likelihood = self.net.log_likelihood(images)
        nats = {"bits_per_dim": likelihood.total, **likelihood._asdict()}
        return {name: self.net.bits_per_dim(value) for name, value in nats.items()}
