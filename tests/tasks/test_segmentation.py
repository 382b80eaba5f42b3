"""The segmentation task on its own, and trained through train.py."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import eval as evaluation
import train
from src.config.composition import compose_config
from src.models.unet import UNet
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.tasks.sample_table import SampleTable
from src.tasks.segmentation import Segmentation
from src.tasks.segmentation_heads import HEADS, region_masks
from tests.fake_segmentation import REGIONS, Linear, nested_case, segmentation_overrides

ROOT = Path(train.__file__).parent


def data(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"sample_shape": (4, 8, 8, 8), "num_classes": 4, "regions": REGIONS, **changes})


def task(net: nn.Module, **settings: Any) -> Segmentation:
    segmentation = Segmentation(net, partial(torch.optim.SGD, lr=0.1), **settings)
    segmentation.check_data(data())
    return segmentation.eval()


def unet(out_channels: int = 4) -> UNet:
    torch.manual_seed(0)
    return UNet(4, out_channels, 4, 2, 3)


def batch(*seeds: int, shape: tuple[int, ...] = (13, 8, 7)) -> dict[str, Tensor]:
    images, labels = zip(*(nested_case(seed, shape) for seed in seeds), strict=True)
    return {"image": torch.stack(images), "label": torch.stack(labels), "index": torch.tensor(seeds)}


class Halves(nn.Conv3d):
    """Returns half of the voxels."""

    def __init__(self) -> None:
        super().__init__(4, 4, 1, stride=2)


@pytest.mark.parametrize(
    ("net", "outputs", "message"),
    [
        (unet(3), "classes", "4 output channels for task.outputs=classes, one per class, background included, got 3"),
        (unet(4), "regions", r"3 output channels .* one per region \(ET, WT, TC\), got 4"),
        (Halves(), "classes", r"keeps the spatial size \(8, 8, 8\), got \(4, 4, 4\)"),
        (UNet(3, 4, 4, 2, 3), "classes", "expected 3 channels, got 4"),
        (UNet(4, 4, 4, 5, 3), "classes", "divisible"),
    ],
)
def test_networks_that_do_not_fit_are_refused(net: nn.Module, outputs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(net, outputs=outputs)


def test_data_without_regions_are_refused() -> None:
    message = "expected a datamodule of segmented volumes .* got SimpleNamespace without num_classes, regions"
    with pytest.raises(ValueError, match=message):
        task(unet()).check_data(SimpleNamespace(sample_shape=(4, 8, 8, 8)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outputs": "dice"}, r"task\.outputs to be one of classes, regions, got 'dice'"),
        ({"overlap": 1.0}, r"task\.overlap in \[0, 1\), got 1\.0"),
        ({"overlap": -0.1}, r"task\.overlap"),
        ({"blending": "linear"}, r"task\.blending to be one of constant, gaussian, got 'linear'"),
        ({"sw_batch_size": 0}, r"positive task\.sw_batch_size, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(unet(), **settings)


@pytest.mark.parametrize("shape", [(8, 8, 8), (20, 17, 9), (5, 8, 3), (8, 30, 5)])
@pytest.mark.parametrize(
    "settings",
    [{}, {"blending": "constant"}, {"overlap": 0.0}, {"overlap": 0.6, "sw_batch_size": 3}],
)
def test_windows_give_what_the_whole_volume_gives_to_a_network_that_sees_voxels_only(
    settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    net = Linear()
    images = batch(0, 1, shape=shape)["image"]
    before = images.clone()
    with torch.no_grad():
        torch.testing.assert_close(task(net, **settings).logits(images), net(images), atol=1e-4, rtol=1e-4)
    assert torch.equal(images, before)


class Shapes(nn.Module):
    """Notes the shapes that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 1)
        self.seen: set[tuple[int, ...]] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(tuple(x.shape))
        return self.conv(x)


def test_the_network_sees_windows_of_the_trainings_size_only() -> None:
    net = Shapes()
    segmentation = task(net, sw_batch_size=2)
    for shape in ((5, 8, 3), (20, 17, 9)):
        segmentation.logits(batch(0, shape=shape)["image"])
    assert {shape[1:] for shape in net.seen} == {(4, 8, 8, 8)}
    assert {shape[0] for shape in net.seen} == {1, 2}


@pytest.mark.parametrize("settings", [{}, {"outputs": "regions", "hausdorff95": True}])
@torch.no_grad()
def test_a_case_scores_the_same_alone_and_in_any_batch(settings: dict[str, Any]) -> None:
    segmentation = task(unet(3 if "outputs" in settings else 4), **settings)
    together, _ = segmentation.judge(batch(0, 1, 4), "test")
    assert set(together) == {metric.name for metric in segmentation.metrics}
    for position, seed in enumerate((0, 1, 4)):
        alone, _ = segmentation.judge(batch(seed), "test")
        for name, value in alone.items():
            torch.testing.assert_close(together[name][position], value[0], msg=name, equal_nan=True)


class Perfect(nn.Module):
    """Reads the label in the first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(200.0))

    def forward(self, x: Tensor) -> Tensor:
        return -self.sharpness * (x[:, :1] - torch.arange(4.0)[:, None, None, None]).abs()


@pytest.mark.parametrize("size", [1, 2, 3])
@torch.no_grad()
def test_a_perfect_network_scores_exactly_one_at_any_batch_size(size: int) -> None:
    cases = batch(*range(5 - size, 5), shape=(20, 17, 9))
    cases["image"][:, 0] = cases["label"]
    values, shown = task(Perfect(), hausdorff95=True).judge(cases, "val")
    assert torch.equal(shown["prediction"], cases["label"])
    for name, value in values.items():
        expected = [0.0 if name == "loss" or "hausdorff95" in name else 1.0] * size
        if name == "dice_present_et":
            tumour = region_masks(cases["label"], REGIONS)[:, 0].flatten(1).any(1)
            assert not tumour[-1]
            expected = [1.0 if there else math.nan for there in tumour]
        assert value.tolist() == pytest.approx(expected, abs=1e-6 if name == "loss" else 0, nan_ok=True), name


def test_losses_and_scores_are_in_single_precision_under_autocast() -> None:
    segmentation, cases = task(unet()), batch(0, 1, shape=(8, 8, 8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert segmentation(cases["image"]).dtype == torch.bfloat16
        loss = segmentation.losses(cases)["loss"]
        rounded = segmentation(cases["image"]).float()
        values, _ = segmentation.judge(cases, "val")
    assert loss.dtype == values["loss"].dtype == torch.float32
    torch.testing.assert_close(loss, segmentation.head.loss(rounded, cases["label"]))
    assert values["dice"].dtype == torch.float64


def test_a_mean_over_the_cases_with_a_region_leaves_the_others_out() -> None:
    segmentation, table = task(unet()), SampleTable()
    scores = {"loss": [1.0, 2.0, 3.0], "dice_et": [0.5, 1.0, 0.75], "dice_present_et": [0.5, math.nan, 0.75]}
    columns = {name: torch.tensor(values) for name, values in scores.items()}
    table.add(torch.arange(3), {**columns, "dice_present_tc": torch.full((3,), math.nan)})
    table.gather(lambda rows: rows)
    means = segmentation.summarise_table(table, "test")
    assert {name: means[name] for name in scores} == {"loss": 2.0, "dice_et": 0.75, "dice_present_et": 0.625}
    assert math.isnan(means["dice_present_tc"])  # no case has it


@torch.no_grad()
def test_a_prediction_is_the_label_map_that_is_judged() -> None:
    segmentation, cases = task(unet()), batch(0, 1)
    prediction = segmentation.predict_step(cases, 0)
    assert prediction.shape == cases["label"].shape and prediction.dtype == torch.long
    assert torch.equal(prediction, segmentation.judge(cases, "test")[1]["prediction"])


def test_the_report_has_a_row_per_region_and_the_mean() -> None:
    segmentation = task(unet())
    scores = {"et": (0.5, 0.25), "wt": (0.75, 1.0), "tc": (0.25, 0.25)}
    metrics: dict[str, float | None] = {"test/loss": 1.0, "test/dice": 0.5}
    for region, (dice, sensitivity) in scores.items():
        metrics |= {f"test/dice_{region}": dice, f"test/sensitivity_{region}": sensitivity}
    report = segmentation.report(metrics)
    assert report is not None and report.columns == ["", "Dice", "sensitivity"]
    assert report.rows == [
        ["ET", "0.500", "0.250"],
        ["WT", "0.750", "1.000"],
        ["TC", "0.250", "0.250"],
        ["mean", "0.500", "0.500"],
    ]
    assert segmentation.report({}) is None
    unknown = segmentation.report({**metrics, "test/dice_wt": None, "test/hausdorff95_et": 2.0})
    assert unknown is not None and unknown.columns[-1] == "Hausdorff 95 % (voxels)"
    assert unknown.rows[1] == ["WT", "-", "1.000", "-"] and unknown.rows[3] == ["mean", "-", "0.500", "-"]


@pytest.mark.parametrize("outputs", HEADS)
def test_minimising_the_loss_finds_the_regions(outputs: str) -> None:
    torch.manual_seed(0)
    segmentation, cases = task(nn.Conv3d(4, 4 if outputs == "classes" else 3, 1), outputs=outputs), batch(0, 1, 2, 4)
    optimizer = torch.optim.Adam(segmentation.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        segmentation.losses(cases)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        values, _ = segmentation.judge(cases, "val")
    names = [name for name in values if name.startswith(("dice_", "sensitivity_"))]
    assert all(values[name].nan_to_num(1.0).min() > 0.95 for name in names)


def run(folder: Path, *more: str) -> dict[str, Any]:
    return train.train(compose_config(segmentation_overrides(folder, *more)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder, "model=unet", "task.hausdorff95=true")
    return folder


def test_a_run_leaves_its_pictures_its_table_and_the_best_checkpoint(finished: Path) -> None:
    expected = ["checkpoints/best.ckpt", "curves.png", "images/test-overlays.png", "images/val-overlays-epoch-0001.png"]
    assert [name for name in expected if not (finished / name).is_file()] == []
    with RunFolder(finished).test_table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["test_000", "test_001", "test_002"]
    metrics = read_summary(RunFolder(finished).summary)["metrics"]
    for name in ("loss", "dice", "dice_et", "sensitivity_wt", "hausdorff95_tc"):
        assert sum(float(row[name]) for row in rows) / 3 == pytest.approx(metrics[f"test/{name}"], rel=1e-6)
    regions = [metrics[f"test/dice_{region}"] for region in ("et", "wt", "tc")]
    assert sum(regions) / 3 == pytest.approx(metrics["test/dice"], rel=1e-6)


@pytest.mark.parametrize("model", ["iunet", "partially_reversible_unet", "unet"])
def test_each_network_trains_on_regions(model: str, tmp_path: Path) -> None:
    more = [f"model={model}", "task.outputs=regions", "model.out_channels=3", "trainer.max_epochs=1"]
    if model == "partially_reversible_unet":
        # oneDNN's gradient of bfloat16 weights is wrong, also for torch's own Conv3d, where a volume has 2³ voxels.
        more.append("network.partially_reversible_unet.channels=[16,32]")
    summary = run(tmp_path, *more, "task.blending=constant", "trainer.precision=bf16-mixed")
    assert summary["steps"] == 2
    assert 0 <= summary["metrics"]["test/dice"] <= 1


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    arguments = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "datamodule.batch_size=1"]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    command = [sys.executable, "train.py", *segmentation_overrides(tmp_path, *arguments, "trainer.max_epochs=1")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    of_two = read_summary(RunFolder(tmp_path).summary)["metrics"]
    config, checkpoint = evaluation.load([f"ckpt={tmp_path}", "trainer=cpu", f"run_dir={tmp_path / 'one'}"])
    of_one = evaluation.evaluate(config, checkpoint)["metrics"]
    assert of_one == pytest.approx({name: value for name, value in of_two.items() if name in of_one}, rel=1e-5)
    assert len(RunFolder(tmp_path).test_table.read_text().splitlines()) == 1 + 3
