"""The convolutional flow: exact inverse and log-determinant, gradients, memory, and its symmetry."""

from __future__ import annotations

import pytest
import torch

from src.invertible import POLICIES, Sequential, set_backprop
from src.models.iconvnet import IConvNetFlow
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.layers.test_oracles import gradients, jacobian_logdet


def flow(**options: object) -> IConvNetFlow:
    torch.manual_seed(0)
    net = IConvNetFlow(1, **{"num_levels": 2, "num_layers": 2, **options}).double()  # type: ignore[arg-type]
    for name, parameter in net.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def image() -> torch.Tensor:
    return torch.randn(2, 1, 4, 8, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"kernel_size": 2}, {"slope": 0.5}, {"num_levels": 1, "num_layers": 3}])
def test_inverse_and_logdet_are_exact(options: dict[str, object]) -> None:
    net, x = flow(**options).eval(), image()
    y, logdet = net.forward_and_logdet(x)
    assert y.shape == x.shape
    torch.testing.assert_close(net.inverse(y), x, rtol=0, atol=1e-10)
    for b in range(2):
        torch.testing.assert_close(logdet[b], jacobian_logdet(net, x, b), rtol=0, atol=1e-8)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_are_exact_under_every_policy(policy: str) -> None:
    net, x = flow().eval(), image()
    expected, found = (gradients(net, "forward_and_logdet", p, x) for p in ("stored", policy))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9 * float(value.abs().max().clamp(min=1)))


def test_a_shift_of_the_image_is_a_shift_of_the_latent() -> None:
    net, x = flow().eval(), image()
    # By a multiple of the coarsest block, the convolutions being circular.
    torch.testing.assert_close(net(x.roll(4, dims=3)), net(x).roll(4, dims=3))


def test_memory_does_not_grow_with_the_layers() -> None:
    def kept(count: int) -> int:
        net = Sequential(IConvNetFlow(1, 2, count).eval())
        set_backprop(net, "reversible")
        return saved_bytes(net, torch.randn(2, 1, 16, 16))

    assert kept(2) == kept(8)


def test_options_and_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="num_layers >= 1, got 0"):
        IConvNetFlow(1, 2, 0)
    with pytest.raises(ValueError, match="slope"):
        IConvNetFlow(1, 2, 2, slope=0.0)
    with pytest.raises(ValueError, match=r"divisible by 2\^2 = 4"):
        flow()(torch.zeros(1, 1, 6, 6, dtype=torch.float64))
