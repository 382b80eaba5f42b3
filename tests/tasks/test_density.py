"""The density task on its own."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from src.models.density import DensityModel
from src.models.glow import Glow
from src.tasks.density import PARTS, Density


def task() -> Density:
    torch.manual_seed(0)
    net = DensityModel(Glow(1, 1, 1, 4), (1, 4, 4))
    return Density(net, partial(torch.optim.SGD, lr=0.1))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randint(256, (3, 1, 4, 4), generator=generator).float(), "index": torch.arange(3)}


def test_the_parts_sum_to_the_bits_and_are_those_of_the_model() -> None:
    density = task()
    density.net(batch()["image"])  # the first batch in training mode sets the normalisations
    values, _ = density.judge(batch(), "val")
    torch.testing.assert_close(values["bits_per_dim"], torch.stack([values[name] for name in PARTS]).sum(0))
    torch.manual_seed(0)  # the index of the batch's first image
    nats = density.net.log_likelihood(batch()["image"]).total
    torch.testing.assert_close(values["bits_per_dim"], -nats / (16 * math.log(2)))
    torch.manual_seed(0)
    torch.testing.assert_close(density.losses(batch())["loss"], values["bits_per_dim"].mean())


def test_judging_repeats_its_noise_and_leaves_the_trainings_alone() -> None:
    density = task()
    density.net(batch()["image"])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, _ = density.judge(batch(), "val")
    assert torch.equal(torch.rand(3), expected)
    second, _ = density.judge(batch(), "val")
    assert torch.equal(first["bits_per_dim"], second["bits_per_dim"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": "unit"}, "values=integers for density estimation, got 'unit'"),
        ({"sample_shape": (3, 4, 4)}, r"images of shape \(3, 4, 4\), got \(1, 4, 4\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    fitting = {"values": "integers", "sample_shape": (1, 4, 4)}
    task().check_data(SimpleNamespace(**fitting))
    with pytest.raises(ValueError, match=message):
        task().check_data(SimpleNamespace(**fitting | changes))


def test_missing_attributes_of_the_data_are_named() -> None:
    with pytest.raises(ValueError, match="images with sample_shape, values, got SimpleNamespace without sample_shape"):
        task().check_data(SimpleNamespace(values="integers"))


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a DensityModel for task=density, got Conv2d"):
        Density(nn.Conv2d(1, 1, 1), partial(torch.optim.SGD, lr=0.1))  # type: ignore[arg-type]


def test_the_report_shows_both_sets_and_nothing_without_a_test() -> None:
    metrics: dict[str, float | None] = {f"{s}/{n}": 1.5 for s in ("val", "test") for n in ("bits_per_dim", *PARTS)}
    report = task().report(metrics)
    assert report is not None and report.rows[0] == ["negative log-likelihood (bits/dim)", "1.5000", "1.5000"]
    assert task().report({"val/bits_per_dim": 1.0}) is None
