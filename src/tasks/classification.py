"""Which class an image belongs to."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_confusion_matrix

from src.invertible.inspection import relative_errors
from src.tasks.base import Batch, Task
from src.tasks.batch_checks import Images, Labels
from src.tasks.data_attributes import check_attributes
from src.tasks.metrics import TASK_METRICS
from src.tasks.sample_table import SampleTable


class Classification(Task):
    """Minimises the cross entropy, and judges by the accuracy; invertible networks also by the error of their inverse.

    Batches are dicts: "image" of shape (B, C, *spatial), "label" of shape (B,), "index" of shape (B,). For a network
    with ``encode`` and ``inverse``, a test measures "reconstruction_error": the relative ℓ2 distance between each image
    and the one recovered from its last invertible features, ``‖x − Φ⁻¹(Φ(x))‖ / ‖x‖``.

    Attributes:
        confusion: after an evaluation, the number of samples by true class (rows) and predicted class (columns).
    """

    metrics = TASK_METRICS["classification"]
    confusion: Tensor | None = None
    _num_classes = 0

    def check_data(self, datamodule: Any) -> None:
        """Run one empty image through the network, and through its inverse where it has one.

        Raises:
            ValueError: if the network does not take the data's images, or has another number of classes.
        """
        check_attributes(datamodule, "labelled images", "sample_shape", "num_classes")
        shape, self._num_classes = tuple(datamodule.sample_shape), int(datamodule.num_classes)
        output = self.probe(self.net, shape)
        if output.shape[1:] != (self._num_classes,):
            raise ValueError(
                f"expected a classifier with outputs of shape (B, {self._num_classes}) for images of shape {shape}, "
                f"got shape (B, {', '.join(map(str, output.shape[1:]))})"
            )
        if self.is_invertible:
            recovered = self.probe(lambda x: self.net.inverse(self.net.encode(x)), shape)  # type: ignore[operator]
            if tuple(recovered.shape[1:]) != shape:
                raise ValueError(f"expected an inverse that gives shape {shape}, got {tuple(recovered.shape[1:])}")
        self.fields = {"image": Images(shape), "label": Labels(self._num_classes)}

    @property
    def is_invertible(self) -> bool:
        """Whether the network can go back from its features to the image."""
        return hasattr(self.net, "encode") and hasattr(self.net, "inverse")

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy in nats, and the accuracy on this batch."""
        logits = self(batch["image"])
        accuracy = (logits.argmax(dim=1) == batch["label"]).float().mean()
        return {"loss": F.cross_entropy(logits, batch["label"]), "accuracy": accuracy}

    def judge(self, batch: Batch, stage: str) -> tuple[dict[str, Tensor], Batch]:
        """Return loss, accuracy, label, prediction and, in a test, the inverse's error; and the predictions."""
        logits = self(batch["image"]).float()
        prediction = logits.argmax(dim=1)
        values = {
            "loss": F.cross_entropy(logits, batch["label"], reduction="none"),
            "accuracy": (prediction == batch["label"]).float(),
            "label": batch["label"],
            "prediction": prediction,
        }
        if stage == "test" and self.is_invertible:
            recovered = self.net.inverse(self.net.encode(batch["image"]))  # type: ignore[operator]
            values["reconstruction_error"] = relative_errors(recovered, batch["image"])
        return values, {"prediction": prediction}

    def infer(self, images: Tensor) -> Tensor:
        """Return the probability of each class, (B, num_classes)."""
        return self(images).float().softmax(dim=1)

    def summarise_table(self, table: SampleTable, stage: str) -> dict[str, float]:
        """Return the means, and the maximum of the reconstruction errors; count the confusions."""
        prediction, label = table.column("prediction").long(), table.column("label").long()
        num_classes = max(self._num_classes, int(torch.cat((prediction, label)).max()) + 1)
        self.confusion = multiclass_confusion_matrix(prediction, label, num_classes)
        metrics = {name: table.column(name).mean().item() for name in ("loss", "accuracy")}
        if "reconstruction_error" in table.columns:
            errors = table.column("reconstruction_error")
            metrics |= {"reconstruction_error": errors.mean().item(), "reconstruction_error_max": errors.max().item()}
        return metrics
