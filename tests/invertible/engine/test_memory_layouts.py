"""Random masks are drawn in the order of memory: a rebuilt input gets the layout that the leaf's input had."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    AdditiveCoupling,
    Downsampling,
    GlowCoupling,
    Graph,
    Inverse,
    InvertibleConv1x1,
    InvertibleModule,
    OnChannels,
    Permutation,
    Sequential,
    VolumePreserving,
    set_backprop,
)
from src.invertible.engine.layouts import Layout
from src.invertible.engine.reversible import keep_input
from src.models.irevnet import IRevNet
from tests.invertible.engine.test_backprop import assert_same

SAVING = [p for p in POLICIES if p != "stored"]


def dropping(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dims_in, dims_out, 3, padding=1), nn.Dropout(0.5))


def dropping_first(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), nn.Conv2d(dims_in, dims_out, 3, padding=1))


class Summing(VolumePreserving):
    """``(a, b) ↦ (a + F(b), b)`` with a random F, by the default rule."""

    def __init__(self) -> None:
        super().__init__()
        self.subnet = dropping(2, 2)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return x[0] + self.subnet(x[1]), x[1]

    def inverse(self, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[0] - self.subnet(y[1]), y[1]


def of_two() -> InvertibleModule:
    graph = Graph()
    first, second = graph.input(2, 8, 8, name="a"), graph.input(2, 8, 8, name="b")
    first, second = graph.add(Summing(), first, second, name="sum")  # type: ignore[misc]
    first = graph.add(InvertibleConv1x1(2), first, name="c")  # type: ignore[assignment]
    return graph.net(first, graph.add(InvertibleConv1x1(2), second, name="d"))  # type: ignore[arg-type]


def kept() -> Sequential:
    net = Sequential(AdditiveCoupling(4, dropping), Permutation(4))
    keep_input(net[0])
    return net


NETS: dict[str, Callable[[], InvertibleModule]] = {
    "additive": lambda: Sequential(AdditiveCoupling(4, dropping), InvertibleConv1x1(4)),
    "glow": lambda: Sequential(GlowCoupling(4, dropping_first), InvertibleConv1x1(4, "full")),
    "inverse": lambda: Sequential(Inverse(GlowCoupling(4, dropping)), InvertibleConv1x1(4)),
    "permuted": lambda: Sequential(AdditiveCoupling(4, dropping), Permutation(4)),
    "coarse": lambda: Sequential(Downsampling(4, spatial_dims=2), GlowCoupling(16, dropping), InvertibleConv1x1(16)),
    "some channels": lambda: Sequential(OnChannels(AdditiveCoupling(3, dropping_first), 1), InvertibleConv1x1(4)),
    "kept": kept,
    "irevnet": lambda: IRevNet(4, 3, (2, 2), (1, 2), dropout=0.3, norm="layer", padded_channels=16),  # type: ignore[return-value, dict-item]
}


def images(layout: str) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if layout == "expanded":
        return x[:1].expand(2, -1, -1, -1)
    return x.to(memory_format=torch.channels_last) if layout == "channels last" else x


def gradients(net: nn.Module, x: Tensor | tuple[Tensor, ...], policy: str) -> list[Tensor | None]:
    set_backprop(net, policy)
    net.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    parts = [part.detach().requires_grad_() for part in (x if isinstance(x, tuple) else (x,))]
    y = net(tuple(parts) if isinstance(x, tuple) else parts[0])
    sum((part**3).sum() for part in (y if isinstance(y, tuple) else (y,))).backward()  # type: ignore[union-attr]
    return [*(part.grad for part in parts), *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("layout", ["channels first", "channels last", "expanded"])
@pytest.mark.parametrize("net", NETS)
def test_rebuilt_inputs_are_masked_alike(net: str, layout: str, policy: str) -> None:
    torch.manual_seed(0)
    tree, x = NETS[net]().double(), images(layout)
    assert_same(gradients(tree, x, policy), gradients(tree, x, "stored"))


@pytest.mark.parametrize("policy", SAVING)
def test_several_tensors_are_masked_alike(policy: str) -> None:
    torch.manual_seed(0)
    tree, x = of_two().double(), images("channels first").split(2, dim=1)
    assert_same(gradients(tree, x, policy), gradients(tree, x, "stored"))


def test_a_layout_is_restored_where_it_differs() -> None:
    x = images("channels last")
    assert Layout.of(x).restored(x) is x
    restored = Layout.of(x).restored(x.contiguous())
    assert restored.stride() == x.stride()
    assert torch.equal(restored, x)
    assert Layout.of(x).restored(coarse := x[..., :4]) is coarse
    part = torch.zeros(2, 6, 8, 8, dtype=x.dtype)[:, 1:5]
    assert Layout.of((part, x)).restored((x, x))[0].stride() == part.stride()


def test_numbers_that_share_a_place_do_not_in_a_restored_layout() -> None:
    x = torch.arange(6.0).unfold(0, 3, 1)  # windows of a series
    values = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(Layout.of(x).restored(values), values)
    assert torch.equal(Layout.of(values[:1].expand(4, 3)).restored(values), values)
