"""The fully invertible convolutional classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.invertible import POLICIES, invertible_roots
from src.models.iconvnet import IConvNetClassifier
from tests.models.policies import assert_policy_is_exact

OPTIONS: dict[str, dict[str, Any]] = {
    "average": {"downsampling": "average"},
    "nearest": {"downsampling": "nearest"},
    "checkerboard": {"downsampling": "checkerboard"},
    "bijective": {"padded_channels": None},
    "no norm": {"norm": "none"},
    "5 taps, almost linear": {"kernel_size": 5, "slope": 0.9},
    "1D": {"spatial_dims": 1},
    "3D": {"spatial_dims": 3},
}


def network(**options: Any) -> IConvNetClassifier:
    torch.manual_seed(0)
    settings = {"padded_channels": 4, "num_layers": (1, 1), "slope": 0.5, **options}
    return IConvNetClassifier(2, 5, **settings).double().eval()


def images(options: dict[str, Any]) -> torch.Tensor:
    return torch.randn(3, 2, *[8] * options.get("spatial_dims", 2), dtype=torch.float64)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_images_come_back_from_their_features(options: dict[str, Any]) -> None:
    net, x = network(**options), images(options)
    assert net(x).shape == (3, 5)
    torch.testing.assert_close(net.inverse(net.encode(x)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_are_exact_under_every_policy(options: dict[str, Any], policy: str) -> None:
    assert_policy_is_exact(network(**options), images(options), policy)


def test_all_of_it_is_one_bijection() -> None:
    assert list(invertible_roots(network())) == ["features"]


def test_the_features_of_a_shifted_image_are_shifted() -> None:
    net, x = network(), images({})
    torch.testing.assert_close(net.encode(x.roll(2, dims=3)), net.encode(x).roll(1, dims=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": ()}, "expected stages of at least one layer"),
        ({"downsampling": "max"}, "downsampling"),
        ({"padded_channels": 1}, "padded channels >= 2"),
        ({"slope": 0.0}, "slope"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible"):
        network()(torch.zeros(1, 2, 7, 7, dtype=torch.float64))
