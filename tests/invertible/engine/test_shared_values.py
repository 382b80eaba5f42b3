"""The hook by which modules compute their values once per pass, on a class that the engine does not know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.invertible import Inverse, InvertibleModule, Sequential, set_backprop
from src.invertible.engine.shared_values import SharedValue
from src.invertible.engine.walk import LeafBackward, backward_rule

BATCHES: list[int] = []  # sizes of those computed


class Scale(SharedValue):
    """``exp θ``."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn((), dtype=torch.float64))

    def batch_key(self) -> str:
        return "all"

    @classmethod
    def values(cls, modules: Sequence[Scale]) -> Sequence[Tensor]:  # type: ignore[override]
        BATCHES.append(len(modules))
        return torch.stack([module.theta for module in modules]).exp().unbind()


class Scaling(InvertibleModule):
    """``y = a x``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale() * x

    def inverse(self, y: Tensor) -> Tensor:
        return y / self.scale()


@backward_rule(Scaling)
def scaling(leaf: LeafBackward, layer: Scaling, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``x = y/a``, ``∇x = a ∇y``, ``∇a = ∇y x``."""
    scale = layer.scale()
    leaf.differentiate_value(layer.scale, (grad * y).sum() / scale)
    return y / scale, grad * scale


@backward_rule(Scaling, inverse=True)
def inverse_scaling(leaf: LeafBackward, layer: Scaling, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The same for ``y = x/a``."""
    scale = layer.scale()
    leaf.differentiate_value(layer.scale, -(grad * y).sum() / scale)
    return y * scale, grad / scale


def gradients(net: InvertibleModule, policy: str, x: Tensor) -> list[Tensor]:
    set_backprop(net, policy)
    net.zero_grad()
    BATCHES.clear()
    x = x.clone().requires_grad_()
    net(x).pow(3).sum().backward()
    assert x.grad is not None
    return [x.grad, *(parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None)]


def test_values_are_computed_once_per_pass_and_differentiated_once() -> None:
    torch.manual_seed(0)
    shared = Scaling()
    net, x = Sequential(shared, Scaling(), Inverse(Scaling()), shared), torch.randn(2, 3, dtype=torch.float64)
    expected = gradients(net, "stored", x)
    assert BATCHES == [1] * 4
    torch.testing.assert_close(gradients(net, "reversible", x), expected, rtol=1e-12, atol=1e-12)
    assert BATCHES == [3, 3, 3], "in the forward pass, on the way back, and for the gradients"
