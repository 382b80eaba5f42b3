"""The classification task on its own."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from src.models.lab import LabIRevNet, LabNet
from src.tasks.classification import Classification
from src.tasks.sample_table import SampleTable


def task(net: nn.Module) -> Classification:
    return Classification(net, partial(torch.optim.SGD, lr=0.1))


def data(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"sample_shape": (1, 28, 28), "num_classes": 10, **changes})


class Constant(nn.Module):
    """Says class 2 whatever it sees, and inverts with an error of 1 %."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 0.0, 5.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), 3)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def inverse(self, features: torch.Tensor) -> torch.Tensor:
        return 1.01 * features / 2


def batch() -> dict[str, torch.Tensor]:
    return {"image": torch.rand(4, 1, 4, 4), "label": torch.tensor([2, 0, 2, 1]), "index": torch.arange(4)}


def test_loss_and_accuracy_are_those_of_torch() -> None:
    losses = task(Constant()).losses(batch())
    logits = torch.tensor([[0.0, 0.0, 5.0]]).expand(4, 3)
    torch.testing.assert_close(losses["loss"], nn.functional.cross_entropy(logits, batch()["label"]))
    assert losses["accuracy"] == 0.5


def test_a_test_counts_confusions_and_measures_the_inverse() -> None:
    classification = task(Constant())
    table = SampleTable()
    values, _ = classification.judge(batch(), "test")
    table.add(batch()["index"], values)
    table.gather(lambda rows: rows)
    metrics = classification.summarise_table(table, "test")
    assert metrics["accuracy"] == 0.5
    assert metrics["reconstruction_error"] == pytest.approx(0.01, rel=1e-4)
    assert metrics["reconstruction_error_max"] == pytest.approx(0.01, rel=1e-4)
    assert classification.confusion is not None
    assert classification.confusion.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 2]]
    report = classification.report({f"test/{name}": value for name, value in metrics.items()})
    assert report is not None and report.rows[0] == ["accuracy (%)", "50.00"] and len(report.rows) == 4


def test_validation_does_not_invert_and_plain_networks_never_do() -> None:
    digits = {"image": torch.rand(2, 1, 28, 28), "label": torch.tensor([3, 1])}
    for net, stage, inverts in ((LabIRevNet(), "val", False), (LabNet(), "test", False), (LabIRevNet(), "test", True)):
        with torch.no_grad():
            values, _ = task(net).judge(digits, stage)
        assert ("reconstruction_error" in values) == inverts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 7}, r"outputs of shape \(B, 7\).*got shape \(B, 10\)"),
        ({"sample_shape": (3, 28, 28)}, "channels"),
        ({"sample_shape": (1, 32, 32)}, "samples of shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(LabNet()).check_data(data(**changes))
    task(LabIRevNet()).check_data(data())


def test_data_without_labels_are_refused() -> None:
    message = "of labelled images with sample_shape, num_classes, got SimpleNamespace without num_classes"
    with pytest.raises(ValueError, match=message):
        task(LabNet()).check_data(SimpleNamespace(sample_shape=(1, 28, 28)))
