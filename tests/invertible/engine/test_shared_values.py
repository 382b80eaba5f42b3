"""The hook by which modules compute their values before a forward pass, on a class that the engine does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
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


def test_values_are_computed_for_the_forward_pass_and_for_their_gradient() -> None:
    torch.manual_seed(0)
    shared = Scaling()
    net, x = Sequential(shared, Scaling(), Inverse(Scaling()), shared), torch.randn(2, 3, dtype=torch.float64)
    expected = gradients(net, "stored", x)
    assert BATCHES == [1] * 4
    torch.testing.assert_close(gradients(net, "reversible", x), expected, rtol=1e-12, atol=1e-12)
    assert BATCHES == [3, 3], "in the forward pass and for the gradients, not on the way back"


def test_two_forward_passes_before_a_backward_pass_keep_their_own_values() -> None:
    torch.manual_seed(0)
    net, x = Sequential(Scaling(), Scaling()), torch.randn(2, 3, dtype=torch.float64)
    first = gradients(net, "stored", x)
    set_backprop(net, "reversible")
    net.zero_grad()
    early, before = net(x).pow(3).sum(), net[0].scale.theta
    net[0].scale.theta = nn.Parameter(before.detach() + 1)
    net(x).pow(3).sum().backward()
    early.backward()
    torch.testing.assert_close(before.grad, first[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("change", [lambda theta: theta.add_(1), lambda theta: theta.data.add_(1)])
def test_changes_of_what_a_value_depends_on_are_noticed(change: Callable[[Tensor], Tensor]) -> None:
    net = Sequential(Scaling(), Scaling())
    set_backprop(net, "reversible")
    loss = net(torch.randn(2, 3, dtype=torch.float64)).sum()
    with torch.no_grad():
        change(net[1].scale.theta)
    with pytest.raises(RuntimeError, match=r"1\.scale\.theta"):
        loss.backward()


def test_a_retained_graph_keeps_its_values() -> None:
    torch.manual_seed(0)
    net, x = Sequential(Scaling(), Scaling()), torch.randn(2, 3, dtype=torch.float64)
    once = gradients(net, "reversible", x)
    net.zero_grad()
    loss = net(x).pow(3).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    found = [parameter.grad for parameter in net.parameters()]
    torch.testing.assert_close(found, [2 * gradient for gradient in once[1:]])
