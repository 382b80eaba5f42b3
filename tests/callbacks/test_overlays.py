"""Overlays of segmentations; tests/tasks/test_segmentation.py runs them in a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from torch import Tensor

from src.callbacks.pictures.overlays import COLORS, FILL_OPACITY, Overlays, Slice, draw_overlays, fullest_slice
from tests.fake_segmentation import nested_case

SETTINGS: dict[str, Any] = {"modalities": {"FLAIR": 3, "T1ce": 1}}
CLASSES = ("NCR", "ED", "ET")


def trainer(**state: Any) -> Any:
    usual = {"is_global_zero": True, "loggers": [], "global_step": 3, "current_epoch": 0, "sanity_checking": False}
    names = ("background", *CLASSES)
    datamodule = SimpleNamespace(case_name=lambda split, index: f"{split}_{index}", class_names=names)
    return SimpleNamespace(
        **{
            **usual,
            "max_epochs": 9,
            "check_val_every_n_epoch": 1,
            "strategy": SimpleNamespace(model=None),
            "datamodule": datamodule,
            **state,
        }
    )


def shown(*seeds: int) -> dict[str, Tensor]:
    images, labels = zip(*(nested_case(seed, (14, 12, 10)) for seed in seeds), strict=True)
    batch = {"image": torch.stack(images), "label": torch.stack(labels), "index": torch.tensor(seeds)}
    return {**batch, "prediction": batch["label"].roll(1, dims=1), "dice": torch.full((len(seeds),), 0.5)}


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_the_slice_is_the_one_with_most_tumour() -> None:
    label = torch.zeros(4, 4, 6, dtype=torch.long)
    assert fullest_slice(label) == 3
    label[:2, :2, 1], label[:3, :3, 4] = 3, 1
    assert fullest_slice(label) == 4


def test_a_row_per_case_and_a_column_per_modality_and_label_map() -> None:
    callback = Overlays("unused", **SETTINGS)
    cases = shown(0, 1)
    slices = [callback.kept(f"case{i}", {key: value[i] for key, value in cases.items()}) for i in (0, 1)]
    position = fullest_slice(cases["label"][0])
    assert (slices[0].modalities["FLAIR"] == cases["image"][0, 3, :, :, position].numpy()).all()
    assert (slices[0].labels["truth"] == cases["label"][0, :, :, position].numpy()).all()
    figure = draw_overlays(slices, CLASSES)
    assert [axes.get_title() for axes in figure.axes] == ["FLAIR", "T1ce", "truth", "prediction", "", "", "", ""]
    assert figure.axes[0].get_ylabel() == f"case0\nslice {position}\nmean Dice 0.500"
    assert tuple(text.get_text() for text in figure.legends[0].get_texts()) == CLASSES
    # One image of the modality, one more for each class in this slice.
    num_classes = len(cases["label"][0, :, :, position].unique()) - 1
    assert [len(axes.get_images()) for axes in figure.axes[:3]] == [1, 1, 1 + num_classes]


def test_a_voxel_is_drawn_where_it_is_in_its_class_color() -> None:
    label = torch.zeros(6, 4)
    label[5, 0] = 2
    case = Slice("case", {"FLAIR": torch.ones(6, 4).numpy()}, {"truth": label.numpy()})
    axes = draw_overlays([case], CLASSES).axes[1]
    assert axes.get_xlim() == (-0.5, 5.5) and axes.get_ylim() == (3.5, -0.5)
    fill = torch.tensor(axes.get_images()[1].get_array())
    assert fill.shape == (4, 6, 4)
    assert fill[0, 5].tolist() == pytest.approx([*to_rgb(COLORS[1]), FILL_OPACITY])
    assert fill.count_nonzero(dim=-1).gt(0).sum() == 1


def test_an_empty_case_can_be_drawn() -> None:
    nothing = torch.zeros(4, 4).numpy()
    figure = draw_overlays([Slice("case", {"FLAIR": nothing}, {"prediction": nothing})], ["NCR"])
    assert len(figure.axes) == 2 and len(figure.axes[1].get_images()) == 1


def test_validations_are_drawn_in_chosen_epochs_and_the_last_one(tmp_path: Path) -> None:
    callback = Overlays(str(tmp_path), **SETTINGS, num_cases=2, every_n_epochs=4)
    for epoch in range(9):
        state = trainer(current_epoch=epoch)
        for seed in (1, 0, 2):
            callback.on_validation_batch_end(state, None, shown(seed), None, 0)
        callback.on_validation_epoch_end(state, None)
    assert pictures(tmp_path) == [f"val-overlays-epoch-{epoch:04d}.png" for epoch in (0, 4, 8)]
    assert imread(tmp_path / "val-overlays-epoch-0000.png").std() > 0.05


def test_the_sanity_check_and_other_processes_draw_nothing(tmp_path: Path) -> None:
    callback = Overlays(str(tmp_path), **SETTINGS)
    for state in (trainer(sanity_checking=True), trainer(is_global_zero=False)):
        callback.on_validation_batch_end(state, None, shown(0), None, 0)
        callback.on_validation_epoch_end(state, None)
    assert pictures(tmp_path) == []


def test_tests_and_predictions_are_drawn_the_latter_without_truth(tmp_path: Path) -> None:
    callback = Overlays(str(tmp_path), **SETTINGS, num_cases=1)
    callback.on_test_batch_end(trainer(), None, shown(0), None, 0)
    callback.on_test_epoch_end(trainer(), None)
    cases = shown(0)
    scans = {"image": cases["image"], "index": cases["index"]}
    callback.on_predict_batch_end(trainer(), None, cases["prediction"], scans, 0)
    assert list(callback._kept[0].labels) == ["prediction"]
    callback.on_predict_epoch_end(trainer(), None)
    assert pictures(tmp_path) == ["predict-overlays.png", "test-overlays.png"]


@pytest.mark.parametrize(
    "settings",
    [{"num_cases": 0}, {"every_n_epochs": 0}, {"modalities": {}}],
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Overlays("unused", **{**SETTINGS, **settings})
