"""A network that pads its input as a part of a tree: the same values and gradients under every policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from src.invertible import POLICIES, Inverse, InvertibleModule, OnChannels, Sequential, set_backprop
from src.invertible.engine.policies import invertible_roots
from src.invertible.graph import Graph
from src.invertible.layers.coupling import AdditiveCoupling
from src.models.iunet import IUNet
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.table.samples import subnet


def coupling(channels: int = 4) -> AdditiveCoupling:
    return AdditiveCoupling(channels, subnet(2))


def iunet(**options: object) -> IUNet:
    return IUNet([4, 8], 2, 2, subnet=subnet(2), **options)  # type: ignore[arg-type]


def graph(part: IUNet) -> InvertibleModule:
    net = Graph()
    x = net.add(coupling(), net.input(4, 4, 6, name="x"), name="before")
    y = net.add(part, x, name="iunet")
    assert not isinstance(y, tuple)
    return net.net(y)


TREES: dict[str, Callable[[IUNet], InvertibleModule]] = {
    "sequential": lambda part: Sequential(coupling(), part, coupling()),
    "nested": lambda part: Sequential(Sequential(coupling()), Sequential(Sequential(part), coupling())),
    "on-channels": lambda part: Sequential(coupling(5), OnChannels(part, 1)),
    "inverse": lambda part: Inverse(Sequential(coupling(), Inverse(part))),
    "graph": graph,
}
PADDINGS = {"reverted": {"revert_padding": True}, "kept": {"revert_padding": False}}


def gradients(net: InvertibleModule, x: Tensor, method: str = "forward") -> list[Tensor | None]:
    net.zero_grad()
    x = x.clone().requires_grad_()
    result = getattr(net, method)(x * 1.0)
    outputs = result if isinstance(result, tuple) else (result,)
    torch.stack([(part**3).sum() for part in outputs]).sum().backward()
    return [*(part.detach() for part in outputs), x.grad, *(p.grad for p in net.parameters())]


def build(tree: str, padding: str) -> tuple[InvertibleModule, int]:
    torch.manual_seed(0)
    return TREES[tree](iunet(padding_mode="reflect", **PADDINGS[padding])).double(), 5 if tree == "on-channels" else 4


# Channels that wait beside a part keep their size: its padding must not stay on.
@pytest.mark.parametrize(
    ("tree", "padding"), [(t, p) for t in TREES for p in PADDINGS if (t, p) != ("on-channels", "kept")]
)
def test_a_padded_part_of_a_tree_is_the_same_under_every_policy(tree: str, padding: str) -> None:
    net, channels = build(tree, padding)
    x = torch.randn(2, channels, 5, 7, dtype=torch.float64)
    set_backprop(net, "stored")
    expected = gradients(net, x)
    for policy in POLICIES:
        set_backprop(net, policy)
        torch.testing.assert_close(gradients(net, x), expected, rtol=1e-9, atol=1e-9, msg=policy)


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("tree", TREES)
def test_on_sizes_without_padding_it_is_a_bijection_under_every_policy(tree: str, method: str) -> None:
    net, channels = build(tree, "reverted")
    x = torch.randn(2, channels, 4, 6, dtype=torch.float64)
    set_backprop(net, "stored")
    expected = gradients(net, x, method)
    for policy in POLICIES:
        set_backprop(net, policy)
        torch.testing.assert_close(gradients(net, x, method), expected, rtol=1e-9, atol=1e-9, msg=policy)
        with torch.no_grad():
            torch.testing.assert_close(net.inverse(net(x)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", POLICIES)
def test_other_sizes_have_no_inverse_and_no_logdet(policy: str) -> None:
    net = Sequential(coupling(), iunet(padding_mode="reflect"), coupling())
    set_backprop(net, policy)
    x = torch.randn(2, 4, 5, 7, requires_grad=True)
    for method in ("inverse", "forward_and_logdet", "inverse_and_logdet"):
        with pytest.raises(
            ValueError, match=r"divisible by \(2, 2\), got \(5, 7\): the network is a bijection only on such"
        ):
            getattr(net, method)(x * 1.0)


def test_each_part_around_the_padding_saves_one_state() -> None:
    part = iunet(padding_mode="reflect")
    net = Sequential(Sequential(coupling(), coupling(), coupling()), part, Sequential(coupling(), coupling()))
    assert list(invertible_roots(net)) == ["0", "1", "2"]
    assert list(invertible_roots(Sequential(coupling(), iunet()))) == [""]
    set_backprop(net, "reversible")
    x = torch.randn(2, 4, 5, 7, requires_grad=True)
    padded = 2 * 4 * 6 * 8 * x.element_size()
    assert saved_bytes(net, x) == 2 * x.numel() * x.element_size() + padded
