"""Pictures of classifiers, flows and downsamplings."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from src.callbacks.pictures.confusion import ConfusionMatrix, draw_confusion
from src.callbacks.pictures.downsampling import DownsamplingPictures, channel_mixing, figure1, figure2
from src.callbacks.pictures.drawing import image_grid
from src.callbacks.pictures.evaluation import EvaluationPictures
from src.callbacks.pictures.flows import FlowPictures, reconstructions
from src.callbacks.pictures.inversions import InversionPictures
from src.callbacks.pictures.overlays import Overlays
from src.callbacks.pictures.reconstructions import ReconstructionPictures
from src.invertible import Downsampling
from src.models.density import DensityModel
from src.models.glow import Glow
from src.models.lab import LabIRevNet, LabNet
from src.tasks.latent_path import interpolations, spherical, straight


class NoContext:
    def forward_context(self) -> Any:
        return torch.no_grad()


def trainer(**state: Any) -> Any:
    usual = {"is_global_zero": True, "loggers": [], "global_step": 3, "current_epoch": 0, "sanity_checking": False}
    usual |= {"max_epochs": 9, "check_val_every_n_epoch": 1, "strategy": SimpleNamespace(model=None), "callbacks": []}
    return SimpleNamespace(**{**usual, "precision_plugin": NoContext(), "datamodule": None, **state})


def model() -> DensityModel:
    torch.manual_seed(0)
    return DensityModel(Glow(1, 1, 2, 4), (1, 8, 8)).eval()


def images(count: int) -> dict[str, torch.Tensor]:
    values = torch.randint(256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    return {"image": values, "index": torch.arange(count)}


def test_a_grid_has_one_range_for_all_and_rows_of_any_length() -> None:
    figure = image_grid({"a": torch.ones(2, 1, 4, 4), "b": [torch.zeros(3, 4, 4)] * 3}, white=2.0)
    shown = [axes.get_images()[0] for axes in figure.axes if axes.get_images()]
    assert len(figure.axes) == 6 and len(shown) == 5
    assert shown[0].get_array().max() == 0.5 and shown[2].get_array().shape == (4, 4, 3)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels to draw, got 2"):
        image_grid({"a": torch.ones(1, 2, 4, 4)})


def test_the_first_samples_come_in_order_and_once(tmp_path: Path) -> None:
    seen: list[dict[int, float]] = []

    class Seeing(EvaluationPictures):
        def figures(self, trainer: Any, task: Any, samples: Any) -> dict[str, Any]:
            seen.append({index: float(image) for index, image in samples.items()})
            return {}

    callback = Seeing(str(tmp_path), count=3)
    batches = [([2.0], [9.0]), [2, 9]], [([0.0], [1.0]), [0, 1]]
    for values, indices in batches:
        batch = {"image": torch.tensor(values), "index": torch.tensor(indices)}
        callback.on_test_batch_end(trainer(), None, batch, None, 0)
    for _ in range(2):
        callback.on_test_epoch_end(trainer(), None)
    assert seen == [{0: 0.0, 1: 1.0, 2: 2.0}, {}] and list(seen[0]) == [0, 1, 2]


class Plain(EvaluationPictures):
    """Draws the value of one image."""

    def figures(self, trainer: Any, task: Any, samples: Any) -> dict[str, Any]:
        return {"x": image_grid({"": [image[None] for image in samples.values()]})}


def drawn(folder: Path, *epochs: int, every: int = 5, end: dict[str, Any] | None = None, **state: Any) -> list[int]:
    callback = Plain(str(folder), count=1, every_n_epochs=every)
    for epoch in epochs:
        at = trainer(current_epoch=epoch, global_step=10 * epoch, **state)
        batch = {"image": torch.full((1, 4, 4), float(epoch)), "index": torch.zeros(1, dtype=torch.int)}
        callback.on_validation_batch_end(at, None, batch, None, 0)
        callback.on_validation_epoch_end(at, None)
    if end is not None:
        callback.on_train_end(trainer(**state, **end), None)
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("*.png"))


@pytest.mark.parametrize(
    ("interval", "every", "expected"),
    [
        (1, 1, list(range(24))),
        (1, 5, [0, 5, 10, 15, 20, 23]),
        (1, 40, [0, 23]),
        (None, 12, [0, 12, 23]),
        (5, 5, [4, 9, 14, 19]),
        (5, 10, [4, 14, 19]),
        (10, 5, [9, 19]),
        (4, 5, [3, 7, 11, 15, 23]),
    ],
)
def test_each_so_many_epochs_and_the_last_validation_are_drawn(
    interval: int | None, every: int, expected: list[int], tmp_path: Path
) -> None:
    epochs = range((interval or 1) - 1, 24, interval or 1)
    assert drawn(tmp_path, *epochs, every=every, max_epochs=24, check_val_every_n_epoch=interval) == expected


def test_a_resumed_run_draws_the_same_epochs(tmp_path: Path) -> None:
    state = {"max_epochs": 24, "check_val_every_n_epoch": 4}
    drawn(tmp_path, 3, 7, **state)
    assert drawn(tmp_path, 11, 15, 19, **state) == [3, 7, 11, 15]


def test_the_last_validation_of_a_training_that_ends_early_is_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path / "a", 0, 1, 2, end={"global_step": 20}) == [0, 2]
    assert drawn(tmp_path / "b", 0, 1, 2, end={"global_step": 21}) == [0], "the weights are no longer those"
    assert drawn(tmp_path / "c", 0, end={"global_step": 0}) == [0]


def test_no_batch_is_held_until_the_next_validation(tmp_path: Path) -> None:
    callbacks = [
        Plain(str(tmp_path), 1),
        ReconstructionPictures(str(tmp_path)),
        Overlays(str(tmp_path), {"a": 0}),
    ]
    volume = torch.rand(1, 6, 6, 6)
    sample = dict.fromkeys(("image", "input", "output", "target"), volume) | {"label": volume[0]}
    for callback, kept in zip(callbacks, [callback.kept("x", sample) for callback in callbacks], strict=True):
        before = copy.deepcopy(kept)
        volume.add_(1)
        assert str(kept) == str(before), callback


def test_the_path_is_straight_between_the_codes() -> None:
    images = torch.tensor([[1.0], [100.0], [7.0]])
    paths = interpolations(torch.log10, lambda z: 10**z, images, 3)
    assert list(paths) == ["0 → 1"]
    torch.testing.assert_close(paths["0 → 1"].flatten(), torch.tensor([1.0, 10.0, 100.0]))


@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
def test_a_spherical_path_has_constant_speed_on_the_great_circle(shape: tuple[int, ...]) -> None:
    first, last = torch.randn(2, 1, *shape, dtype=torch.float64)
    last *= first.norm() / last.norm()
    path = [spherical(first, last, t) for t in torch.linspace(0, 1, 5).tolist()]
    torch.testing.assert_close(path[0], first)
    torch.testing.assert_close(path[-1], last)
    whole = angle(first, last)
    for i, point in enumerate(path):
        torch.testing.assert_close(point.norm(), first.norm())
        torch.testing.assert_close(angle(first, point), whole * i / 4, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("factor", [3.0, 1.0, 0.0, -2.0])
def test_a_spherical_path_is_straight_where_it_is_not_defined(factor: float) -> None:
    first = torch.randn(4, 7, 2)
    last = factor * first
    torch.testing.assert_close(spherical(first, last, 0.25), straight(first, last, 0.25))
    assert spherical(torch.zeros(1, 3), torch.ones(1, 3), 0.5).tolist() == [[0.5] * 3]


def test_each_pair_has_its_own_angle() -> None:
    images = torch.randn(4, 5)
    path = interpolations(torch.clone, torch.clone, images, 3, "spherical")
    torch.testing.assert_close(
        path["2 → 3"], interpolations(torch.clone, torch.clone, images[2:], 3, "spherical")["0 → 1"]
    )
    with pytest.raises(ValueError, match="expected path to be one of straight, spherical, got 'curved'"):
        interpolations(torch.clone, torch.clone, images, 3, "curved")


def angle(one: Tensor, two: Tensor) -> Tensor:
    return ((one * two).sum() / one.norm() / two.norm()).clamp(-1, 1).acos()


def test_a_flow_is_drawn_in_chosen_epochs_and_after_a_test(tmp_path: Path) -> None:
    callback = FlowPictures(str(tmp_path), num_images=4, temperatures=[1.0, 0.0], every_n_epochs=2)
    task = SimpleNamespace(net=model())
    for epoch in (1, 2):
        callback.on_validation_batch_end(trainer(), task, images(4), None, 0)
        callback.on_validation_epoch_end(trainer(current_epoch=epoch), task)
    callback.on_test_batch_end(trainer(), task, images(4), None, 0)
    callback.on_test_epoch_end(trainer(), task)
    names = ("interpolations", "reconstructions", "samples")
    expected = [f"test-{name}.png" for name in names] + [f"val-{name}-epoch-0002.png" for name in names]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == expected
    assert imread(tmp_path / "test-samples.png").std() > 0.01


def test_samples_repeat_and_leave_the_random_stream_alone(tmp_path: Path) -> None:
    callback = FlowPictures(str(tmp_path), num_images=2, temperatures=[1.0, 0.0])
    density = model()
    torch.manual_seed(5)
    first = callback.samples(density)
    found = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), found)
    second = callback.samples(density)
    assert torch.equal(first["T = 1"], second["T = 1"])
    assert torch.equal(first["T = 0"][0], first["T = 0"][1])


@torch.no_grad()
def test_reconstructions_and_ends_of_interpolations_are_the_images() -> None:
    shown = images(4)["image"]
    density = model()
    rows = reconstructions(density, shown)
    torch.testing.assert_close(rows["f⁻¹(f(x))"], shown + 0.5, rtol=1e-3, atol=0.1)
    path = interpolations(density.encode, density.decode, shown, 4)["0 → 1"]
    torch.testing.assert_close(path[[0, -1]], shown[:2] + 0.5, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(
    "settings", [{"num_images": 3}, {"every_n_epochs": 0}, {"temperatures": []}, {"path": "curved"}]
)
def test_flow_pictures_of_impossible_settings_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        FlowPictures(str(tmp_path), **settings)


@pytest.mark.parametrize(
    ("net", "names"), [(LabNet(), ["psi"]), (LabIRevNet(), ["interpolations", "psi", "reconstructions"])]
)
def test_an_invertible_classifier_is_drawn_and_another_as_far_as_it_goes(
    net: torch.nn.Module, names: list[str], tmp_path: Path
) -> None:
    callback = InversionPictures(str(tmp_path), num_images=4, num_steps=3)
    task = SimpleNamespace(net=net, is_invertible=hasattr(net, "inverse"))
    batch = {"image": torch.rand(5, 1, 28, 28), "index": torch.arange(5)}
    callback.on_test_batch_end(trainer(), task, batch, None, 0)
    callback.on_test_epoch_end(trainer(), task)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == [f"test-{name}" for name in names]


@pytest.mark.parametrize("settings", [{"num_images": 1}, {"num_steps": 1}])
def test_inversion_pictures_of_impossible_settings_are_refused(settings: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        InversionPictures(str(tmp_path), **settings)


def test_confusions_are_shaded_by_their_share(tmp_path: Path) -> None:
    counts = torch.tensor([[8, 2], [0, 4]])
    (axes,) = draw_confusion(counts, ["cat", "dog"]).axes
    torch.testing.assert_close(torch.tensor(axes.get_images()[0].get_array()), torch.tensor([[0.8, 0.2], [0.0, 1.0]]))
    assert [text.get_text() for text in axes.texts] == ["8", "2", "4"]
    callback = ConfusionMatrix(str(tmp_path))
    callback.on_test_end(trainer(), SimpleNamespace(confusion=counts))
    assert (tmp_path / "confusion.png").is_file()


def test_the_papers_pictures_of_downsampling(tmp_path: Path) -> None:
    callback = DownsamplingPictures(str(tmp_path))
    task = SimpleNamespace(net=Downsampling(1, 2, spatial_dims=2, init="random"))
    callback.on_fit_start(trainer(), task)
    resumed = DownsamplingPictures(str(tmp_path))
    resumed.load_state_dict(callback.state_dict())
    resumed.on_fit_start(trainer(), SimpleNamespace(net=Downsampling(1, 2, spatial_dims=2)))
    assert resumed.at_start is callback.at_start
    resumed.on_test_end(trainer(), task)
    assert sorted(p.stem for p in tmp_path.glob("*.png")) == ["channel_mixing", "figure1", "figure2", "figure4"]


def test_the_inverse_pixel_shuffle_of_unequal_channels_has_a_checkerboard() -> None:
    flat = torch.full((1, 1, 512, 512), 0.5)
    shuffled = figure2(flat)["inverse pixel shuffle"]
    blocks = shuffled.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4)
    torch.testing.assert_close(blocks / blocks[:, :1], torch.tensor([[1.0, 0.75, 0.5, 0.25]]).expand_as(blocks))
    assert figure2(flat)["inverse Haar, details 0: detail"].std() < 1e-6
    assert figure1(flat)["pixel shuffle"].std() == 0


def test_mixed_channels_come_back() -> None:
    panels = channel_mixing()
    titles = list(panels)
    assert not torch.allclose(panels[titles[0]], panels[titles[1]], atol=0.1)
    torch.testing.assert_close(panels[titles[0]], panels[titles[2]], atol=1e-6, rtol=0)
