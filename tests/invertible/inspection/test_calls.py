"""What is noted of the calls of a network's invertible trees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.invertible import POLICIES, AffineCoupling, OrthogonalMixing, Sequential, set_backprop
from src.invertible.inspection import FirstCalls
from src.models.iunet import IUNet
from tests.invertible.table.samples import dense, subnet


def flow() -> Sequential:
    return Sequential(AffineCoupling(4, dense, condition_channels=2), OrthogonalMixing(4, init="random"))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("with_grad", [True, False])
@pytest.mark.parametrize("name", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
def test_the_first_call_of_each_entry_point_is_noted(name: str, with_grad: bool, policy: str) -> None:
    tree, x, condition = flow(), torch.randn(3, 4), torch.randn(3, 2, requires_grad=True)
    set_backprop(tree, policy)
    watch = FirstCalls(nn.ModuleList([tree]))
    with torch.set_grad_enabled(with_grad):
        result = getattr(tree, name)(x, condition)
        tree(2 * x, condition)
    (call,) = watch.close()
    assert torch.equal(call.x, x) and torch.equal(call.condition, condition) and not call.condition.requires_grad
    y = result[0] if isinstance(result, tuple) else result
    torch.testing.assert_close(call.tree(call.x, call.condition), y)
    tree(x, condition)
    assert watch.close() == [] and tree.watcher is None


def test_inside_a_padding_the_padded_state_is_noted() -> None:
    net = IUNet((4, 8), 1, 2, subnet=subnet(2), padding_mode="constant")
    watch = FirstCalls(net)
    net(torch.randn(1, 4, 5, 3))
    (call,) = watch.close()
    assert call.tree is net.bijection and call.x.shape == (1, 4, 6, 4)


def test_trees_are_noted_in_the_order_of_their_calls() -> None:
    first, second, unused = OrthogonalMixing(4), OrthogonalMixing(4), OrthogonalMixing(4)
    net = nn.ModuleList([first, second, unused])
    watch = FirstCalls(net)
    first(second(torch.randn(2, 4, 3)))
    assert [call.tree for call in watch.close()] == [second, first]


def test_only_chosen_trees_are_watched() -> None:
    chosen, other = OrthogonalMixing(4), OrthogonalMixing(4)
    watch = FirstCalls(nn.ModuleList([chosen, other]), lambda tree: tree is chosen)
    chosen(other(torch.randn(2, 4, 3)))
    assert [call.tree for call in watch.close()] == [chosen]
