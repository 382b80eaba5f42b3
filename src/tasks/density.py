"""How many bits an image takes: exact likelihoods with normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from src.models.density import DensityModel
from src.tasks.base import Batch, Report, Task
from src.utils.random_stream import own_stream

PARTS = ("prior", "logdet", "dequantisation")


class Density(Task):
    """Minimises the bits per dimension of integer images, ``−log₂ p(k) / D`` for D numbers per image.

    Batches are dicts: "image" of shape (B, C, *spatial) with integers, "index" of shape (B,). The three terms of the
    likelihood (prior of the latent, log-determinant of flow and preprocessing, minus the log-density of the
    dequantisation noise) are logged apart, in bits per dimension; they sum to "bits_per_dim". It is an upper bound of
    the true number, by one draw of the dequantisation noise per image.

    Raises:
        ValueError: if the network is no `DensityModel`.
    """

    headline = "bits_per_dim"
    net: DensityModel

    def __init__(self, net: DensityModel, *args: Any, **kwargs: Any) -> None:
        if not isinstance(net, DensityModel):
            raise ValueError(f"expected a DensityModel for a density task, got {type(net).__name__}")
        super().__init__(net, *args, **kwargs)

    def check_data(self, datamodule: Any) -> None:
        """Run one empty image through the flow.

        Raises:
            ValueError: if the data are no integers, or the flow does not take such images.
        """
        values = getattr(datamodule, "values", None)
        if values != "integers":
            raise ValueError(f"expected a datamodule with values=integers for a density, got {values!r}")
        shape = tuple(datamodule.sample_shape)
        if shape != tuple(self.net.sample_shape):
            raise ValueError(f"expected a model of images of shape {shape}, got {tuple(self.net.sample_shape)}")
        latent = self.probe(self.net.encode, shape)
        if tuple(latent.shape[1:]) != shape:
            raise ValueError(f"expected a flow that keeps the shape {shape}, got {tuple(latent.shape[1:])}")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean bits per dimension and its parts."""
        bits = self._bits(batch["image"])
        return {"loss": bits["bits_per_dim"].mean(), **{name: bits[name].detach().mean() for name in PARTS}}

    def columns(self, stage: str) -> Sequence[str]:
        """Return the bits per dimension and their parts."""
        return ("bits_per_dim", *PARTS)

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return the columns, with the same dequantisation noise each time, which leaves the training's noise alone."""
        with own_stream(int(batch["index"][0]), self.device):
            return self._bits(batch["image"]), {}

    def report(self, metrics: dict[str, float | None]) -> Report | None:
        """Return bits per dimension and their parts, for the validation and the test set."""
        stages = [stage for stage in ("val", "test") if metrics.get(f"{stage}/bits_per_dim") is not None]
        if "test" not in stages:
            return None
        rows = [[name, *(f"{metrics[f'{stage}/{name}']:.4f}" for stage in stages)] for name in ("bits_per_dim", *PARTS)]
        return Report(["bits per dimension", *stages], rows)

    def _bits(self, images: Tensor) -> dict[str, Tensor]:
        likelihood = self.net.log_likelihood(images)
        bits = {name: self._per_dim(getattr(likelihood, name)) for name in PARTS}
        return {"bits_per_dim": self._per_dim(likelihood.total), **bits}

    def _per_dim(self, nats: Tensor) -> Tensor:
        return -nats / (math.prod(self.net.sample_shape) * math.log(2))
