"""Autograd may return one tensor for two inputs, or the one that it was given: what is written to one stays there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    AdditiveCoupling,
    AffineCoupling,
    Concat,
    GlowCoupling,
    Graph,
    InvertibleConv1x1,
    InvertibleModule,
    Permutation,
    Sequential,
    Split,
    VolumePreserving,
    set_backprop,
)
from src.invertible.engine import walk
from src.invertible.engine.ownership import apart
from tests.invertible.engine.test_backprop import assert_same, small_input, small_tree
from tests.invertible.table.samples import dense


class ShiftByCondition(VolumePreserving):
    takes_condition = True

    def forward(self, x: Tensor, condition: Any = None) -> Tensor:
        return x + condition

    def inverse(self, y: Tensor, condition: Any = None) -> Tensor:
        return y - condition


class Shift(VolumePreserving):
    """``y = x + a + b``; for a batch of one, the gradients of all three are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(1, 4)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.a + self.b

    def inverse(self, y: Tensor) -> Tensor:
        return y - self.a - self.b


class AddSecond(VolumePreserving):
    """``(a, b) ↦ (a + b, b)``."""

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] + x[1], x[1]

    def inverse(self, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[0] - y[1], y[1]


class Exponential(InvertibleModule):
    """Its log-determinant is the sum of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()

    def inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.exp(), x.sum(1)


class Constant(nn.Module):
    """A subnet that returns a parameter: for a batch of one, its gradient is the one that it was given."""

    def __init__(self, dims_in: int, dims_out: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(1, dims_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.value + 0 * x[:, : self.value.shape[1]].detach()


def first_of_two() -> InvertibleModule:
    graph = Graph()
    wires = [
        graph.add(AffineCoupling(4, dense), graph.input(4, name=name), name=f"at_{name}")
        for name in ("first", "second")
    ]
    return graph.net(*graph.add(AddSecond(), *wires, name="sum"))  # type: ignore[arg-type, misc]


def vectors(batch: int) -> Tensor:
    return torch.randn(batch, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def logdet(net: InvertibleModule, x: Tensor) -> Tensor:
    return net.forward_and_logdet(x)[1].sum()


CASES: dict[str, tuple[Callable[[], InvertibleModule], int, Callable[[Any, Tensor], Tensor]]] = {
    "condition": (
        lambda: Sequential(AffineCoupling(4, dense), ShiftByCondition()),
        3,
        lambda net, x: net(x * 1.0, x.tanh()).square().sum(),
    ),
    "parameters": (lambda: Sequential(AffineCoupling(4, dense), Shift()), 1, lambda net, x: net(x).square().sum()),
    "subnet": (lambda: Sequential(AffineCoupling(4, Constant)), 1, lambda net, x: net(x).pow(3).sum()),
    "other branch": (first_of_two, 3, lambda net, x: net((x * 1.0, 2 * x))[0].square().sum()),
    "log-determinant": (lambda: Sequential(AffineCoupling(4, dense), Exponential()), 3, logdet),
    "two log-determinants": (lambda: Sequential(Exponential(), AffineCoupling(4, dense), Exponential()), 1, logdet),
    "joined": (
        lambda: Sequential(Split([1, 3]), Concat([1, 3]), AffineCoupling(4, dense)),
        3,
        lambda net, x: net(x).pow(3).sum(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_keep_their_numbers(case: str) -> None:
    construct, batch, loss = CASES[case]
    results = []
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        net, x = construct().double(), vectors(batch)
        set_backprop(net, policy)
        loss(net, x).backward()
        results.append([x.grad, *(p.grad for p in net.parameters())])
    assert_same(results[1], results[0], 1e-12)


def test_gradients_of_a_caller_lie_apart() -> None:
    net, x = Sequential(Shift()).double(), vectors(1)
    set_backprop(net, "reversible")
    net(x * 1.0).square().sum().backward()
    places = [part.grad.data_ptr() for part in (x, *net.parameters()) if part.grad is not None]
    assert len(set(places)) == 3


def test_sparse_gradients_pass() -> None:
    class Embedded(nn.Module):
        def __init__(self, dims_in: int, dims_out: int) -> None:
            super().__init__()
            self.table = nn.Embedding(3, dims_out, sparse=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.table((x[:, 0] > 0).long())

    net = Sequential(AdditiveCoupling(4, Embedded)).double()
    set_backprop(net, "reversible")
    net(vectors(3)).sum().backward()
    assert all(p.grad is not None and p.grad.is_sparse for p in net.parameters())


def test_couplings_copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("expected gradients in memory of their own")

    monkeypatch.setattr(walk, "apart", refuse)
    couplings = [layer(4, lambda i, o: nn.Conv2d(i, o, 3, padding=1)) for layer in (AffineCoupling, GlowCoupling)]
    net = Sequential(small_tree(), *couplings, InvertibleConv1x1(4), Permutation(4)).double()
    set_backprop(net, "reversible")
    y, logdet = net.forward_and_logdet(small_input().requires_grad_())
    ((y**2).sum() + logdet.sum()).backward()


def test_only_what_shares_numbers_is_copied() -> None:
    whole, other = torch.arange(24.0).reshape(2, 3, 4), torch.zeros(2)
    for dim, layout in ((0, whole), (1, whole), (2, whole), (1, whole.transpose(0, 2))):
        pieces = layout.split([1, layout.shape[dim] - 1], dim)
        assert all(a is b for a, b in zip(apart([*pieces, other, None], ()), [*pieces, other, None], strict=True))
    for tensors in ([whole, whole], [whole, whole.view(6, 4)], [whole[:, :2], whole[:, 1:]], [whole[0], whole[:, 0]]):
        first, second = apart(tensors, ())
        assert first is tensors[0]
        assert second is not None
        assert second.data_ptr() != tensors[1].data_ptr()
        assert torch.equal(second, tensors[1])
    expanded, held = apart([other[:1].expand(3, 1, 5), whole], [whole.flatten()])
    assert expanded is not None
    assert held is not None
    assert expanded.stride() == (5, 5, 1)
    assert held.data_ptr() != whole.data_ptr()
