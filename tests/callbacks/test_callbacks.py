"""The callbacks one by one; tests/test_train.py runs them together."""

from __future__ import annotations

import math
import random
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from pytorch_lightning import LightningModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from src.callbacks.invertibility import Invertibility, relative_inversion_error
from src.callbacks.pictures.curves import Curves, draw_curves
from src.callbacks.pictures.reconstructions import ReconstructionPictures, shown_slices, triptych
from src.callbacks.progress import LineProgress, progress_bar
from src.invertible import AdditiveCoupling, InvertibleModule
from src.runs.random_state import RandomState


class Leaky(InvertibleModule):
    """Its inverse misses by one per cent."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def inverse(self, y: Tensor) -> Tensor:
        return 1.01 * y / 2


def test_the_inversion_error_is_relative() -> None:
    x = torch.randn(2, 4, 5, 5, 5) * 1000
    assert relative_inversion_error(Leaky(), x) == pytest.approx(0.01, rel=1e-4)
    coupling = AdditiveCoupling(4, lambda c_in, c_out: torch.nn.Conv3d(c_in, c_out, 1)).double()
    assert relative_inversion_error(coupling, x.double()) < 1e-15


class Broken(Leaky):
    """Its inverse finds one sample only."""

    def inverse(self, y: Tensor) -> Tensor:
        return torch.where(torch.arange(len(y))[:, None] == 0, y / 2, torch.nan)


@pytest.mark.parametrize("parts", [(Leaky(), Broken()), (Broken(), Leaky())])
def test_an_inversion_that_is_not_a_number_is_the_worst_of_all(parts: tuple[InvertibleModule, ...]) -> None:
    callback, logged = Invertibility(), {}
    net = LightningModule()
    net.parts = torch.nn.ModuleList(parts)
    trainer: Any = SimpleNamespace(
        precision_plugin=SimpleNamespace(forward_context=nullcontext), strategy=SimpleNamespace(model=None)
    )
    net.log = lambda name, value, **options: logged.update({name: value})  # type: ignore[assignment]
    callback.on_validation_batch_start(trainer, net, None, 0)
    for part in parts:
        part(torch.ones(2, 3))
    callback.on_validation_batch_end(trainer, net, None, None, 0)
    assert math.isnan(logged["val/invertibility_error"])


def test_volumes_are_shown_by_the_slices_through_the_middle() -> None:
    volume = torch.arange(4 * 6 * 8).view(4, 6, 8)
    slices = shown_slices(torch.stack([volume, volume + 1]))
    for found, expected in zip(slices, [volume[2], volume[:, 3], volume[:, :, 4]], strict=True):
        assert torch.equal(found[0], expected.float())


@pytest.mark.parametrize(("channels", "drawn"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 1)])
def test_images_of_three_or_four_channels_are_shown_in_colour(channels: int, drawn: int, tmp_path: Path) -> None:
    image = torch.rand(channels, 6, 8)
    [shown] = shown_slices(image)
    assert torch.equal(shown, image[:drawn])
    figure = triptych({"input": [shown], "truth": [torch.rand(1, 5, 7)]}, data_range=1.0)
    found = figure.axes[0].get_images()[0].get_array()
    expected = image[:3].permute(1, 2, 0) if drawn == 3 else image[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_triptych_shows_all_columns_in_one_grey_window() -> None:
    low, high = torch.zeros(8, 8, 8), torch.full((8, 8, 8), 3.0)
    volumes = {"FBP": low, "network": low + 1.5, "truth": high}
    figure = triptych({title: shown_slices(volume[None]) for title, volume in volumes.items()}, data_range=3.0)
    assert [axes.get_title() for axes in figure.axes[:4]] == [*volumes, ""]
    images = [axes.get_images()[0] for axes in figure.axes]
    assert len(images) == 9
    assert {image.get_clim() for image in images} == {(0.0, 1.0)}
    greys = [float(image.cmap(image.norm(image.get_array()))[0, 0, 0]) for image in images[:3]]
    assert greys == pytest.approx([0.0, 0.5, 1.0], abs=0.01)


def test_without_a_range_the_truths_largest_value_is_white(tmp_path: Path) -> None:
    truth = torch.full((1, 1, 8, 8), 3.0)
    callback, task = ReconstructionPictures(str(tmp_path)), SimpleNamespace(data_range=None, input_title="FBP")
    kept = callback.kept("val", {"input": truth[0] * 2, "output": truth[0] / 2, "target": truth[0]})
    [figure] = callback.figures(cast(Any, None), task, {0: kept}).values()
    images = [axes.get_images()[0] for axes in figure.axes]
    assert [float(image.get_array().mean()) for image in images] == [1.0, 0.5, 1.0]


def shown(folder: Path, **trainer_state: Any) -> list[str]:
    trainer: Any = SimpleNamespace(
        **{"is_global_zero": True, "loggers": [], "global_step": 7, "sanity_checking": False, "max_epochs": 9}
        | {"datamodule": None, "check_val_every_n_epoch": 1, "strategy": SimpleNamespace(model=None)}
        | trainer_state
    )
    volumes = torch.rand(3, 1, 12, 12, 12)
    outputs = {"input": volumes, "output": volumes, "target": volumes, "index": torch.tensor([1, 2, 0])}
    callback, task = (
        ReconstructionPictures(str(folder), num_volumes=2, every_n_epochs=4),
        SimpleNamespace(data_range=1.0, input_title="FBP"),
    )
    callback.on_validation_batch_end(trainer, task, outputs, None, 0)
    callback.on_validation_epoch_end(trainer, task)
    return sorted(path.name for path in folder.glob("*.png"))


def test_pictures_of_the_first_volumes_in_chosen_epochs(tmp_path: Path) -> None:
    assert shown(tmp_path / "a", current_epoch=4) == ["val-000-epoch-0004.png", "val-001-epoch-0004.png"]
    assert shown(tmp_path / "b", current_epoch=5) == []
    assert len(shown(tmp_path / "c", current_epoch=8)) == 2, "the last epoch"
    assert shown(tmp_path / "d", current_epoch=4, sanity_checking=True) == []
    assert shown(tmp_path / "e", current_epoch=4, is_global_zero=False) == []
    assert imread(tmp_path / "a" / "val-000-epoch-0004.png").shape[2] == 4


@pytest.mark.parametrize("settings", [{"num_volumes": 0}, {"every_n_epochs": 0}])
def test_pictures_need_positive_counts(settings: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        ReconstructionPictures(str(tmp_path), **settings)


def test_curves_go_on_after_a_resume_and_draw_what_there_is(tmp_path: Path) -> None:
    panels = {"loss": ["train/loss", "val/loss"], "PSNR (dB)": ["val/psnr"]}
    first, second = Curves(str(tmp_path), panels), Curves(str(tmp_path), panels)
    first.history = {"train/loss": [(2, 0.5), (4, 0.25)], "val/psnr": [(4, 20.0)]}
    second.load_state_dict(first.state_dict())
    assert second.history == first.history
    loss, psnr = draw_curves(second.history, panels).axes
    assert [line.get_label() for line in loss.lines] == ["train/loss"]
    assert loss.lines[0].get_xydata().tolist() == [[2, 0.5], [4, 0.25]]
    assert loss.get_yscale() == "log" and psnr.get_yscale() == "linear"


def test_curves_are_drawn_seldom_while_epochs_are_short_and_whole_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("src.callbacks.pictures.curves.time.monotonic", lambda: now)
    drawn: list[int] = []

    def drawing(history: Any, panels: Any) -> Figure:
        nonlocal now
        drawn.append(len(history["val/loss"]))
        now += 0.5
        return draw_curves(history, panels)

    monkeypatch.setattr("src.callbacks.pictures.curves.draw_curves", drawing)
    curves = Curves(str(tmp_path), {"loss": ["val/loss"]})
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer: Any = SimpleNamespace(
        sanity_checking=False, state=state, global_step=1, callback_metrics={"val/loss": 0.5}, is_global_zero=True
    )
    for _ in range(12):
        curves.on_validation_end(trainer, None)  # type: ignore[arg-type]
        now += 10.0
    assert drawn == [1, 6, 11], "half a second is 1 % of 50 s"
    curves.on_train_end(trainer, None)  # type: ignore[arg-type]
    assert drawn[-1] == 12
    curves.on_exception(trainer, None, KeyboardInterrupt())  # type: ignore[arg-type]
    assert drawn[-2:] == [12, 12]


def draw() -> list[float]:
    return [float(torch.rand(())), np.random.rand(), random.random()]  # noqa: NPY002


def test_random_numbers_go_on_where_the_checkpoint_stopped() -> None:
    trainer: Any = SimpleNamespace(world_size=1, global_rank=0)
    checkpoint: dict[str, Any] = {}
    RandomState().on_save_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    expected = draw()
    resumed = RandomState()
    resumed.on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    resumed.on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert draw() == expected
    # Only once: a second fit of the same process goes its own way.
    resumed.on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert draw() != expected


def test_a_process_that_the_interrupted_run_did_not_have_keeps_its_own_numbers() -> None:
    trainer: Any = SimpleNamespace(world_size=1, global_rank=0)
    checkpoint: dict[str, Any] = {}
    RandomState().on_save_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    fourth = SimpleNamespace(world_size=4, global_rank=3)
    resumed = RandomState()
    resumed.on_load_checkpoint(fourth, None, checkpoint)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    resumed.on_fit_start(fourth, None)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_terminal_progress_is_lines(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    bar = progress_bar()
    assert isinstance(bar, LineProgress)
    trainer: Any = SimpleNamespace(
        current_epoch=2, max_epochs=8, global_step=0, estimated_stepping_batches=80, callbacks=[]
    )
    bar.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = 30
    monkeypatch.setattr(bar, "get_metrics", lambda *_: {"v_num": "x", "train/loss": 0.5})
    bar.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "", "within the interval"
    bar.interval_s = 0.0
    bar.on_train_batch_end(trainer, None, None, None, 1)  # type: ignore[arg-type]
    bar.disable()
    bar.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 3/8  step 30/80  train/loss 0.5  ") and line.endswith("min left")


@pytest.mark.parametrize(("stage", "word"), [("validation", "val"), ("test", "test"), ("predict", "predict")])
def test_long_evaluations_say_how_far_they_are(stage: str, word: str, capsys: pytest.CaptureFixture) -> None:
    bar = LineProgress(interval_s=0.0)
    trainer: Any = SimpleNamespace(**{f"num_{word}_batches": [66], "sanity_checking": False})
    getattr(bar, f"on_{stage}_start")(trainer, None)
    on_batch_end = getattr(bar, f"on_{stage}_batch_end")
    on_batch_end(trainer, None, None, None, 2)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(stage) and "3/66  " in line and line.endswith("min left")
    bar.interval_s = 100.0
    on_batch_end(trainer, None, None, None, 3)
    bar.interval_s = 0.0
    bar.disable()
    on_batch_end(trainer, None, None, None, 4)
    assert capsys.readouterr().out == ""


def test_the_sanity_check_prints_no_line(capsys: pytest.CaptureFixture) -> None:
    bar = LineProgress(interval_s=0.0)
    trainer: Any = SimpleNamespace(num_val_batches=[66], sanity_checking=True)
    bar.on_validation_batch_end(trainer, None, None, None, 0)
    assert capsys.readouterr().out == ""
