"""Wrong batches of a data module of one's own, in plain words."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.tasks import base
from src.tasks.base import Task
from src.tasks.batch_checks import HALF, Images, Labels, check_batch, dtypes_of
from src.tasks.classification import Classification
from src.tasks.reconstruction import Reconstruction

FLOAT = {torch.float32}
PAIRS = {"input": Images((1, 16, 12)), "target": Images((2, 16, 12), "target_shape", "input")}
LABELLED = {"image": Images((3, 8, 8)), "label": Labels(4)}
SEGMENTED = {"image": Images((3, 8, 8, 8)), "label": Labels(4, per_voxel=True)}


def pairs(size: tuple[int, ...] = (16, 12), **changes: Any) -> dict[str, Any]:
    own = {"input": torch.zeros(2, 1, *size), "target": torch.zeros(2, 2, *size), "index": torch.arange(2)}
    return {**own, **changes}


def labelled(label: Any, *more: int) -> dict[str, Any]:
    return {"image": torch.zeros(3, 3, 8, 8, *more), "label": label, "index": torch.arange(3)}


WITHOUT_INDEX = {key: value for key, value in pairs().items() if key != "index"}
RENAMED = {"image" if key == "input" else key: value for key, value in pairs().items()}


@pytest.mark.parametrize(
    ("batch", "stage", "message"),
    [
        ((1, 2), "train", "first training batch to be a dict of tensors with input, target, got a tuple"),
        (RENAMED, "train", "dict of tensors with input, target, got image, target, index, without input"),
        (WITHOUT_INDEX, "val", "first validation batch .* got input, target, without index"),
        ({}, "test", "first test batch .* got no keys, without input, target, index"),
        (pairs(input=[1, 2]), "train", "got a list as 'input'"),
        (pairs(input=torch.zeros(2, 16, 12)), "train", r"'input' .*shape \(B, 1, 16, 12\), by .*, got \(2, 16, 12\)"),
        (
            pairs((20, 12)),
            "train",
            r"'input' .* shape \(B, 1, 16, 12\), by the data's sample_shape, got \(2, 1, 20, 12",
        ),
        (
            pairs(input=torch.zeros(2, 3, 9, 9)),
            "val",
            r"'input' .* shape \(B, 1, any, any\), by .*, got \(2, 3, 9, 9\)",
        ),
        (pairs(target=torch.zeros(2, 1, 16, 12)), "train", r"'target' .*\(B, 2, 16, 12\), by the data's target_shape"),
        (
            pairs(target=torch.zeros(2, 2, 9, 9)),
            "test",
            r"'target' .*\(2, 2, 16, 12\), the size of 'input', got \(2, 2",
        ),
        (
            pairs(input=torch.zeros(2, 1, 16, 12).double()),
            "train",
            r"'input' .* to have dtype torch\.float32, like the network, got torch\.float64",
        ),
        (pairs(target=torch.zeros(2, 2, 16, 12, dtype=torch.uint8)), "train", r"'target' .* got torch\.uint8"),
        (pairs(index=torch.arange(3)), "val", r"'index' .* shape \(2,\), one for each sample, got \(3,\)"),
        (pairs(index=torch.zeros(2)), "val", r"'index' .* an integer dtype, got torch\.float32"),
    ],
)
def test_wrong_pairs(batch: Any, stage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch(batch, PAIRS, stage, FLOAT)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([1, 4, 2]), "'label' .* classes from 0 to 3, got 1 to 4"),
        (torch.tensor([-1, 3, 2]), "classes from 0 to 3, got -1 to 3"),
        (torch.eye(4)[:3], r"'label' .* shape \(3,\), one class for each image, got \(3, 4\)"),
        (torch.zeros(3, 1, dtype=torch.int64), r"shape \(3,\), one class for each image, got \(3, 1\)"),
        (torch.zeros(3), r"an integer dtype, got torch\.float32"),
        (torch.zeros(3, dtype=torch.int32), r"dtype torch\.int64, got torch\.int32"),
    ],
)
def test_wrong_labels(label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch(labelled(label), LABELLED, "val", FLOAT)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.zeros(3, 1, 8, 8, 8).long(), r"shape \(3, 8, 8, 8\), one class for each voxel, got \(3, 1, 8, 8, 8\)"),
        (torch.zeros(3, 8, 8, 8), "an integer dtype"),
        (torch.full((3, 8, 8, 8), 4), "classes from 0 to 3, got 4 to 4"),
    ],
)
def test_wrong_label_maps(label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch(labelled(label, 8), SEGMENTED, "train", FLOAT)


def test_right_batches_of_any_size_pass() -> None:
    check_batch(WITHOUT_INDEX, PAIRS, "train", FLOAT)
    check_batch(pairs((40, 7)), PAIRS, "val", FLOAT)
    check_batch(pairs(more=None), PAIRS, "test", FLOAT)
    check_batch(labelled(torch.tensor([0, 3, 1])), LABELLED, "train", FLOAT)
    check_batch(labelled(torch.full((3, 8, 8, 8), 3, dtype=torch.uint8), 8), SEGMENTED, "test", FLOAT)
    sinogram = {"input": Images((1, 20, 23)), "target": Images((1, 16, 16))}
    other = {"input": torch.zeros(2, 1, 20, 30), "target": torch.zeros(2, 1, 18, 18), "index": torch.arange(2)}
    check_batch(other, sinogram, "val", FLOAT)
    check_batch({"image": torch.zeros(2, 1, 4, 4).byte()}, {"image": Images((1, 4, 4), integers=True)}, "train", FLOAT)


def test_the_dtypes_of_a_network() -> None:
    net = nn.Conv2d(1, 1, 1)
    assert dtypes_of(net, is_mixed=False) == {torch.float32}
    assert dtypes_of(net.double(), is_mixed=False) == {torch.float64}
    assert dtypes_of(net.float(), is_mixed=True) == {torch.float32, *HALF}
    assert dtypes_of(nn.Identity(), is_mixed=True) == set()
    check_batch(pairs(input=torch.zeros(2, 1, 16, 12).double()), PAIRS, "train", set())
    with pytest.raises(ValueError, match=r"to have dtype torch\.float32, like the network, got torch\.float64"):
        check_batch(pairs(input=torch.zeros(2, 1, 16, 12).double()), PAIRS, "train", dtypes_of(net, is_mixed=True))


def reconstruction() -> Reconstruction:
    task = Reconstruction(nn.Conv2d(1, 1, 1), partial(torch.optim.SGD, lr=0.1))
    task.check_data(SimpleNamespace(sample_shape=(1, 16, 16), data_range=1.0))
    return task


def classification() -> Classification:
    task = Classification(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), partial(torch.optim.SGD, lr=0.1))
    task.check_data(SimpleNamespace(sample_shape=(1, 8, 8), num_classes=3))
    return task


def trainer(**settings: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, max_epochs=2, **quiet, **settings)


def loader(*items: Any) -> DataLoader:
    return DataLoader(items, batch_size=2)  # type: ignore[arg-type]


IMAGE = np.zeros((1, 16, 16), np.float32)
DIGIT = np.zeros((1, 8, 8), np.float32)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("task", "item", "message"),
    [
        (reconstruction, (IMAGE, IMAGE), "to be a dict of tensors with input, target.*, got a list"),
        (reconstruction, {"image": IMAGE, "target": IMAGE}, "without input"),
        (reconstruction, {"input": IMAGE.astype(float), "target": IMAGE}, r"'input' .* got torch\.float64"),
        (reconstruction, {"input": IMAGE[0], "target": IMAGE}, r"'input' .* got \(2, 16, 16\)"),
        (reconstruction, {"input": IMAGE, "target": IMAGE[:, 2:]}, r"'target' .* got \(2, 1, 14, 16\)"),
        (classification, {"image": DIGIT, "label": 3}, "'label' .* classes from 0 to 2, got 3 to 3"),
        (classification, {"image": DIGIT, "label": np.eye(3)[1]}, r"'label' .* got \(2, 3\)"),
    ],
)
def test_every_stage_of_a_trainer_refuses_them(task: Any, item: Any, message: str) -> None:
    items = [{**item, "index": i} if isinstance(item, dict) else item for i in range(4)]
    for stage, run in (("training", "fit"), ("validation", "validate"), ("test", "test")):
        with pytest.raises(ValueError, match=message) as refused:
            getattr(trainer(), run)(task(), loader(*items))
        assert f"the first {stage} batch" in str(refused.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_only_the_first_batch_of_a_stage_is_checked(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = mock.Mock(side_effect=check_batch)
    monkeypatch.setattr(base, "check_batch", checked)
    task = reconstruction()
    items = loader(*({"input": IMAGE, "target": IMAGE, "index": i} for i in range(6)))
    trainer(precision=precision).fit(task, items, items)
    assert [call.args[2] for call in checked.call_args_list] == ["val", "train"]
    trainer(precision=precision).test(task, items, verbose=False)
    trainer(precision=precision).test(task, items, verbose=False)
    assert [call.args[2] for call in checked.call_args_list[2:]] == ["test", "test"]


def test_a_task_that_says_no_fields_is_not_checked() -> None:
    class Own(Task):
        def losses(self, batch: Any) -> dict[str, Tensor]:
            return {"loss": self(batch[0]).mean()}

    own = Own(nn.Linear(2, 1), partial(torch.optim.SGD, lr=0.1))
    assert own.training_step((torch.zeros(3, 2),), 0).shape == ()  # type: ignore[arg-type]
