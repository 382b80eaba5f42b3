"""Composition, and couplings' arguments."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from src.invertible import (
    AdditiveCoupling,
    AffineCoupling,
    Inverse,
    OnChannels,
    OrthogonalMixing,
    Sequential,
    set_backprop,
)


def identity_subnet(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Conv1d(dims_in, dims_out, 1)


def test_named_sequential_and_its_parts() -> None:
    first, second = OrthogonalMixing(2), OrthogonalMixing(2)
    net = Sequential(OrderedDict(first=first, second=second))
    assert list(net) == [first, second]
    assert net[1] is second
    assert len(net) == 2
    assert "first.matrices.theta" in net.state_dict()


def flow(*names: str) -> Sequential:
    """Affine couplings in double precision, each unlike the others."""
    torch.manual_seed(0)
    parts = {name: AffineCoupling(4, identity_subnet, flip=bool(i % 2)) for i, name in enumerate(names)}
    return Sequential(OrderedDict(parts)).double()


@pytest.mark.parametrize("policy", ["stored", "reversible"])
def test_a_slice_is_the_composition_of_its_parts(policy: str) -> None:
    net = flow("a", "b", "c", "d")
    set_backprop(net, policy)
    middle, x = net[1:3], torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert type(middle) is Sequential and list(middle) == [net[1], net[2]]
    assert list(dict(middle.named_children())) == ["b", "c"], "names stay"
    assert middle.backprop_policy is net.backprop_policy
    y, logdet = middle.forward_and_logdet(x)
    first, logdet_b = net[1].forward_and_logdet(x)
    torch.testing.assert_close(y, net[2](first))
    torch.testing.assert_close(logdet, logdet_b + net[2].forward_and_logdet(first)[1])
    torch.testing.assert_close(middle.inverse(y), x)
    (y.sum() + logdet.sum()).backward()
    trained = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    assert trained and {name.split(".")[0] for name in trained} == {"b", "c"}, "the layers are shared"
    assert [list(part) for part in (net[:0], net[-1:], net[::2])] == [[], [net[3]], [net[0], net[2]]]


def test_a_part_can_be_appended_and_is_under_the_policy_of_the_tree() -> None:
    net, x = flow("0", "1"), torch.randn(2, 4, 3, dtype=torch.float64)
    set_backprop(net, "reversible")
    part = flow("x")
    assert net.append(part) is net and net[2] is part and list(dict(net.named_children())) == ["0", "1", "2"]
    torch.testing.assert_close(net.inverse(net(x)), x)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = net(x)
    assert len(saved) == 1, "the output"
    torch.testing.assert_close(y, part(net[:2](x)))


def test_an_appended_part_takes_a_name_that_is_free() -> None:
    net = flow("0", "1", "2")[1:]
    assert list(dict(net.append(flow("x")).append(flow("y")).named_children())) == ["1", "2", "3", "4"]
    with pytest.raises(TypeError, match="expected an InvertibleModule as part '5', got ReLU"):
        net.append(nn.ReLU())  # type: ignore[arg-type]


def test_sequential_refuses_what_is_not_invertible() -> None:
    with pytest.raises(TypeError, match="expected an InvertibleModule as part '1', got ReLU"):
        Sequential(OrthogonalMixing(2), nn.ReLU())  # type: ignore[arg-type]


def test_inverse_of_an_inverse_is_the_module() -> None:
    module = OrthogonalMixing(2)
    assert Inverse(module).inverted() is module


def test_on_channels_leaves_the_kept_channels_alone() -> None:
    net = OnChannels(OrthogonalMixing(2, init="random"), 3)
    x = torch.randn(1, 5, 4)
    y = net(x)
    assert torch.equal(y[:, :3], x[:, :3])
    assert not torch.equal(y[:, 3:], x[:, 3:])
    with pytest.raises(ValueError, match="expected more than the 3 kept channels, got 3"):
        net(x[:, :3])
    with pytest.raises(ValueError, match="num_kept >= 1, got 0"):
        OnChannels(OrthogonalMixing(2), 0)


@pytest.mark.parametrize("flip", [False, True])
def test_coupling_changes_one_group_only(flip: bool) -> None:
    coupling = AdditiveCoupling(5, identity_subnet, split=2, flip=flip)
    x = torch.randn(1, 5, 4)
    y = coupling(x)
    read, changed = coupling.groups(torch.arange(5.0)[None])
    assert [g.shape[1] for g in (read, changed)] == ([3, 2] if flip else [2, 3])
    read_channels, changed_channels = read[0].long(), changed[0].long()
    assert torch.equal(y[:, read_channels], x[:, read_channels])
    torch.testing.assert_close(y[:, changed_channels], x[:, changed_channels] + coupling.subnet(x[:, read_channels]))


@pytest.mark.parametrize("split", [0, 5])
def test_coupling_refuses_an_empty_group(split: int) -> None:
    with pytest.raises(ValueError, match=f"split between 1 and channels - 1, got split={split}, channels=5"):
        AdditiveCoupling(5, identity_subnet, split=split)


def test_coupling_refuses_another_number_of_channels() -> None:
    with pytest.raises(ValueError, match="expected 4 channels, got 5"):
        AdditiveCoupling(4, identity_subnet)(torch.zeros(1, 5, 4))
