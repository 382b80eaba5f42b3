"""Windows that slide over images of other sizes than a network is for."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from src.tasks.reconstruction import Reconstruction
from src.tasks.windows import SlidingWindow


def scale(images: Tensor) -> Tensor:
    """A network whose output at a voxel depends on this voxel alone, for one size."""
    assert images.shape[2:] == (12, 16)
    return 2 * images + 1


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("size", [(12, 16), (13, 31), (40, 20), (5, 30), (5, 7)])
def test_windows_give_what_the_network_gives_at_once(size: tuple[int, int], blending: str) -> None:
    images = torch.rand(2, 3, *size)
    found = SlidingWindow(0.25, blending, 3)(scale, images, (12, 16))
    torch.testing.assert_close(found, 2 * images + 1)


@pytest.mark.parametrize("options", [(1.0, "constant", 1), (-0.1, "constant", 1), (0, "linear", 1), (0, "constant", 0)])
def test_options_out_of_range(options: tuple[float, str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected (task\.|a positive task\.)"):
        SlidingWindow(*options)


class Sizes(nn.Conv2d):
    """Notes the sizes of its inputs."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape[2:]))
        return super().forward(x)


def reconstruction(net: nn.Module, channels: int = 1, **settings: str) -> Reconstruction:
    task = Reconstruction(net, partial(torch.optim.SGD, lr=0.1), **settings)  # type: ignore[arg-type]
    data = {"sample_shape": (channels, 12, 16), "target_shape": (1, 12, 16), "data_range": 1.0}
    task.check_data(SimpleNamespace(**data))
    return task


def test_whole_images_are_restored_in_windows_of_the_trainings_size() -> None:
    net = Sizes()
    images = torch.rand(1, 1, 20, 33)
    batch = {"input": images, "target": torch.rand_like(images), "index": torch.tensor([0])}
    values, shown = reconstruction(net, input_name="input").judge(batch, "test")
    assert set(net.seen) == {(12, 16)} and len(net.seen) > 5
    torch.testing.assert_close(shown["output"], net(images))
    assert set(values) == {"loss", "psnr", "ssim", "psnr_input", "ssim_input"}
    torch.testing.assert_close(values["loss"], (net(images) - batch["target"]).square().mean()[None])


def test_an_image_of_the_trainings_size_goes_through_the_network_at_once() -> None:
    net = Sizes()
    images = torch.rand(2, 1, 12, 16)
    task = reconstruction(net)
    net.seen.clear()
    assert torch.equal(task.infer(images), net(images)) and len(net.seen) == 2


def test_an_input_of_other_channels_is_not_judged() -> None:
    images = torch.rand(1, 2, 12, 16)
    batch = {"input": images, "target": images[:, :1], "index": torch.tensor([0])}
    task = reconstruction(Sizes(2), channels=2, input_name="input")
    assert set(task.judge(batch, "val")[0]) == {"loss", "psnr", "ssim"}
    report = task.report({"test/psnr": 20.0, "test/ssim": 0.5})
    assert report is not None and report.columns == ["", "input", "network", "gain"]
    assert report.rows == [["PSNR (dB)", "-", "20.00", "-"], ["SSIM", "-", "0.5000", "-"]]


def test_the_metrics_are_those_of_the_inputs_name() -> None:
    names = {
        name: [metric.name for metric in reconstruction(Sizes(), input_name=name).metrics] for name in ("fbp", "input")
    }
    assert names["fbp"] == ["psnr", "ssim", "loss", "psnr_fbp", "ssim_fbp"]
    assert names["input"] == ["psnr", "ssim", "loss", "psnr_input", "ssim_input"]
    with pytest.raises(ValueError, match=r"task\.input_name to be one of fbp, input, got 'FBP'"):
        reconstruction(Sizes(), input_name="FBP")
