"""The task behind figures: sparse downsamplings."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from src.datamodules.photographs import PhotographsDataModule, photograph
from src.invertible import Downsampling
from src.tasks.sparsity import Sparsity


def sparsity(init: Any) -> Sparsity:
    return Sparsity(Downsampling(1, 2, spatial_dims=2, init=init), partial(torch.optim.SGD, lr=0.1))


def test_the_baselines_are_pixel_shuffle_and_haar() -> None:
    batch = {"image": torch.rand(3, 1, 8, 8), "index": torch.arange(3)}
    for init in ("pixel_shuffle", "haar"):
        values, _ = sparsity(init).judge(batch, "test")
        torch.testing.assert_close(values["loss"], values[init])
        torch.testing.assert_close(values["loss"].mean(), sparsity(init).losses(batch)["loss"])


def test_the_overlap_is_one_for_haar_in_any_order_and_half_for_the_pixel_shuffle() -> None:
    torch.testing.assert_close(sparsity("haar").haar_overlap(), torch.ones(4))
    torch.testing.assert_close(sparsity("pixel_shuffle").haar_overlap(), torch.full((4,), 0.5))


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a Downsampling for task=sparsity, got Conv2d"):
        Sparsity(nn.Conv2d(1, 1, 1), partial(torch.optim.SGD, lr=0.1))
    several = Sparsity(Downsampling(2, 2, spatial_dims=2), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ValueError, match="expected a Downsampling of one channel"):
        several.check_data(PhotographsDataModule(size=8))


def test_data_without_a_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"datamodule of images .* got SimpleNamespace without sample_shape"):
        sparsity("haar").check_data(SimpleNamespace())


def test_patches_are_cut_from_the_photographs_and_stay_the_same() -> None:
    datamodule = PhotographsDataModule(size=32, num_train=5, num_val=3, num_test=4, batch_size=2)
    datamodule.setup()
    batches = list(datamodule.test_dataloader())
    assert [tuple(b["image"].shape) for b in batches] == [(2, 1, 32, 32)] * 2
    windows = photograph("camera").unfold(0, 32, 1).unfold(1, 32, 1)
    patch = batches[0]["image"][0, 0]
    assert (windows[:, :, 0, 0] == patch[0, 0]).logical_and((windows == patch).all(-1).all(-1)).any()
    assert torch.equal(batches[0]["image"], next(iter(datamodule.test_dataloader()))["image"])


@pytest.mark.parametrize("settings", [{"size": 0}, {"size": 300}, {"num_train": 0}])
def test_patches_of_impossible_sizes_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected (size from 1 to 256|num_train of at least 1), got "):
        PhotographsDataModule(**settings)
