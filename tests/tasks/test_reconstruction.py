"""The reconstruction task on its own."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from src.tasks.finite_loss import NonFiniteLossError
from src.tasks.reconstruction import Reconstruction
from tests.fakes import ToNaN


def task(net: nn.Module, **settings: Any) -> Reconstruction:
    return Reconstruction(net, partial(torch.optim.SGD, lr=0.1), **settings)


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, 12, 12, 12)
    return {
        "input": torch.rand(shape, generator=generator),
        "target": torch.rand(shape, generator=generator),
        "index": torch.arange(2),
    }


def test_the_loss_is_the_squared_l2_distance_per_voxel() -> None:
    reconstruction = task(nn.Conv3d(1, 1, 1))
    reconstruction.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    data = batch()
    expected = ((reconstruction(data["input"]) - data["target"]) ** 2).sum() / data["target"].numel()
    torch.testing.assert_close(reconstruction.training_step(data, 0), expected)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(NonFiniteLossError, match=r"got nan in epoch 0, step 0\. Possible remedies"):
        task(ToNaN()).training_step(batch(), 0)


class Crop(nn.Conv3d):
    """Returns fewer voxels than it gets."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)


@pytest.mark.parametrize(
    ("net", "data", "message"),
    [
        (Crop(), {}, r"maps \(1, 12, 12, 12\) to the same shape, got \(1, 10, 10, 10\)"),
        (nn.Conv3d(1, 1, 1), {"data_range": 2.0}, r"task\.data_range=2\.0, as in the data, got 1\.0"),
        (nn.Conv3d(1, 1, 1), {"sample_shape": (1, 10, 10, 10)}, "at least 11"),
        (nn.Conv3d(1, 1, 1), {"target_shape": (1, 14, 14, 14)}, r"maps \(1, 12, 12, 12\) to \(1, 14, 14, 14\), got"),
    ],
)
def test_data_that_do_not_fit_are_refused(net: nn.Module, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(net).check_data(SimpleNamespace(**{"sample_shape": (1, 12, 12, 12), "data_range": 1.0, **data}))


def test_missing_attributes_of_the_data_are_named() -> None:
    for missing in ("sample_shape", "data_range"):
        data = {"sample_shape": (1, 12, 12), "data_range": 1.0}
        del data[missing]
        message = rf"of pairs of input and target with sample_shape, data_range, got SimpleNamespace without {missing}$"
        with pytest.raises(ValueError, match=message):
            task(nn.Conv2d(1, 1, 1)).check_data(SimpleNamespace(**data))


def test_the_uniform_window_takes_smaller_images() -> None:
    task(nn.Conv2d(1, 1, 1), ssim_window="uniform").check_data(SimpleNamespace(sample_shape=(1, 7, 8), data_range=1.0))


def test_a_sinogram_needs_a_network_of_ones_own() -> None:
    data = SimpleNamespace(data_range=1.0, sample_shape=(1, 20, 23), target_shape=(1, 16, 16))
    with pytest.raises(
        ValueError, match=r"to \(1, 16, 16\), got \(1, 20, 23\); model=<your own> can reconstruct other"
    ):
        task(nn.Conv2d(1, 1, 1)).check_data(data)


def test_the_check_changes_nothing() -> None:
    net = nn.Sequential(nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1), nn.BatchNorm3d(1).eval())  # the last one is frozen
    before = {name: value.clone() for name, value in net.state_dict().items()}
    task(net).check_data(SimpleNamespace(sample_shape=(1, 12, 12, 12), data_range=1.0))
    assert [part.training for part in net.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "settings", [{"data_range": 0.0}, {"data_range": float("nan")}, {"backprop": "magic"}, {"ssim_window": "hann"}]
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        task(nn.Conv3d(1, 1, 1), **settings)


def test_inputs_of_another_shape_than_the_targets_are_not_judged() -> None:
    reconstruction = task(nn.Upsample((14, 12, 12)), data_range=None, ssim_window="uniform")
    data = batch() | {"target": torch.rand(2, 1, 14, 12, 12)}
    values, shown = reconstruction.judge(data, "test")
    assert set(values) == {"loss", "psnr", "ssim"} and shown["output"].shape == data["target"].shape
    report = reconstruction.report({f"test/{name}": value.mean().item() for name, value in values.items()})
    assert report is not None and [row[1::2] for row in report.rows] == [["-", "-"]] * 2


def test_a_second_test_judges_its_own_inputs() -> None:
    data = batch()
    sharper = data | {"input": 0.9 * data["target"] + 0.1 * data["input"]}
    reconstruction = task(nn.Conv3d(1, 1, 1))
    options = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", **options)  # type: ignore[arg-type]
    found = [
        trainer.test(reconstruction, DataLoader([part], batch_size=None), verbose=False)[0]["test/psnr_fbp"]
        for part in (data, sharper)
    ]
    assert found[1] - found[0] == pytest.approx(20, abs=1e-3)  # a tenth of the noise


def test_the_check_forgets_the_inputs_of_other_data() -> None:
    data, reconstruction = batch(), task(nn.Conv3d(1, 1, 1))
    before = reconstruction.judge(data, "test")[0]["psnr_fbp"]
    reconstruction.check_data(SimpleNamespace(sample_shape=(1, 12, 12, 12), data_range=1.0))
    found = reconstruction.judge(data | {"input": data["target"] + 0.1}, "test")[0]["psnr_fbp"]
    torch.testing.assert_close(found, torch.full((2,), 20.0))
    assert not torch.allclose(found, before)


def test_without_a_schedule_the_rate_is_constant() -> None:
    assert isinstance(task(nn.Conv3d(1, 1, 1)).configure_optimizers(), torch.optim.SGD)


def test_the_report_sets_fbp_against_the_network() -> None:
    reconstruction = task(nn.Conv3d(1, 1, 1))
    metrics = {"test/psnr_fbp": 14.0, "test/psnr": 20.5, "test/ssim_fbp": 0.25, "test/ssim": None}
    report = reconstruction.report(metrics)
    assert report is not None
    assert report.rows == [["PSNR (dB)", "14.00", "20.50", "+6.50"], ["SSIM", "0.2500", "-", "-"]]
    assert reconstruction.report({}) is None
