"""The iUNet as a flow: exact inverse and log-determinant, gradients, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.invertible import POLICIES, set_backprop
from src.models.iunet_flow import IUNetFlow
from src.models.iunet_layout import split_channels
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.layers.test_oracles import gradients, jacobian_logdet


def flow(in_channels: int = 1, **options: Any) -> IUNetFlow:
    torch.manual_seed(0)
    net = IUNetFlow(in_channels, **{"num_levels": 2, "num_couplings": 2, "hidden_channels": 4, **options}).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net.eval()


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "colour": {"in_channels": 3},
    "one level": {"num_levels": 1},
    "mixing around splits": {"mixing_frequency": -1, "mixing": {"method": "cayley"}},
    "fixed pixel shuffle": {"resampling": {"init": "pixel_shuffle", "learnable": False}},
    "a quarter goes down": {"split_fraction": 0.25},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_inverse_and_logdet_are_exact(options: dict[str, Any]) -> None:
    net, x = flow(**options), torch.randn(2, options.get("in_channels", 1), 4, 4, dtype=torch.float64)
    y, logdet = net.forward_and_logdet(x)
    assert y.shape == x.shape
    torch.testing.assert_close(net.inverse(y), x, rtol=0, atol=1e-10)
    for b in range(2):
        torch.testing.assert_close(logdet[b], jacobian_logdet(net, x, b), rtol=0, atol=1e-8)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_are_exact_under_every_policy(policy: str) -> None:
    net, x = flow(), torch.randn(2, 1, 4, 4, dtype=torch.float64)
    expected, found = (gradients(net, "forward_and_logdet", p, x) for p in ("stored", policy))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9 * float(value.abs().max().clamp(min=1)))


def test_it_starts_as_an_orthogonal_map_of_normalised_channels() -> None:
    torch.manual_seed(0)
    net = IUNetFlow(1, 2, 2, 4)
    y, logdet = net.eval().forward_and_logdet(x := torch.randn(2, 1, 8, 8))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-5)
    torch.testing.assert_close(logdet, torch.zeros(2))


def test_memory_does_not_grow_with_the_couplings() -> None:
    def kept(count: int) -> int:
        net = IUNetFlow(1, 2, count, 4).eval()
        set_backprop(net, "reversible")
        return saved_bytes(net, torch.randn(2, 1, 16, 16))

    assert kept(2) == kept(8)


def test_channels_follow_the_split() -> None:
    assert list(split_channels(12, 3, 0.5, 4)) == [12, 24, 48]
    assert list(split_channels(12, 2, 0.25, 4)) == [12, 12]
    assert list(split_channels(100, 2, 0.29, 1)) == [100, 29]  # though 0.29 · 100 is 28.999… in floating point


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_fraction": 1.0}, "between 0 and 1"),
        ({"num_levels": 0}, "num_levels >= 1"),
        ({"hidden_channels": 0}, "hidden"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow(**options)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"divisible by 2\^2 = 4 for 2 levels, got \(6, 6\)"):
        flow()(torch.zeros(1, 1, 6, 6, dtype=torch.float64))
