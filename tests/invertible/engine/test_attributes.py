"""Tensors that require gradients and stand as plain attributes in modules: they get theirs, or are refused by name."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, AffineCoupling, OrthogonalMixing, Sequential, set_backprop
from tests.invertible.engine.test_backprop import assert_same
from tests.invertible.table.samples import dense

SAVING = [p for p in POLICIES if p != "stored"]
OWN = ["reversible", "memcnn"]


class Scaled(nn.Module):
    """A subnet that reads a tensor which is no parameter of it."""

    factor: Tensor

    def __init__(self, dims_in: int, dims_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dims_in, dims_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * self.factor


class Remembering(nn.Module):
    """A subnet that keeps what it has computed, as for a picture or a further loss."""

    seen: Tensor

    def __init__(self, dims_in: int, dims_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dims_in, dims_out)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.tanh(self.linear(x))
        return self.seen


def vectors() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def with_factor(factor: Tensor, policy: str) -> Sequential:
    torch.manual_seed(0)
    net = Sequential(AffineCoupling(4, Scaled), AdditiveCoupling(4, Scaled, flip=True)).double()
    set_backprop(net, policy)
    for module in net.modules():
        if isinstance(module, Scaled):
            module.factor = factor
    return net


@pytest.mark.parametrize("policy", SAVING)
def test_a_tensor_without_a_graph_gets_its_gradient(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        factor = torch.ones(2, dtype=torch.float64, requires_grad=True)
        net = with_factor(factor, p)
        (net(vectors()) ** 3).sum().backward()
        results.append([factor.grad, *(q.grad for q in net.parameters())])
        assert net[0].subnet_s.factor is factor  # type: ignore[union-attr]
    assert_same(results[1], results[0], 1e-12)


@pytest.mark.parametrize("policy", OWN)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_tensor_with_a_graph_is_refused_by_name(frozen: bool, policy: str) -> None:
    net = with_factor(2 * torch.ones(2, dtype=torch.float64, requires_grad=True), policy).requires_grad_(not frozen)
    loss = net(vectors()).sum()
    with pytest.raises(RuntimeError, match=r"expected '.*factor' to be a parameter.*set_backprop\(net, 'stored'\)"):
        loss.backward()


def test_a_tensor_with_a_graph_works_under_checkpoint() -> None:
    results = []
    for policy in ("stored", "checkpoint"):
        weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
        (with_factor(2 * weight, policy)(vectors()) ** 3).sum().backward()
        results.append([weight.grad])
    assert_same(results[1], results[0], 1e-12)


@pytest.mark.parametrize("policy", SAVING)
def test_what_an_earlier_pass_has_left_behind_does_no_harm(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net, unused = Sequential(AdditiveCoupling(4, Remembering)).double(), Remembering(4, 4).double()
        net[0].unused = unused  # type: ignore[assignment]
        for _ in range(3):
            set_backprop(net, "stored")
            net(vectors()).sum().backward()
            unused(vectors()).sum().backward()
            net.zero_grad()
            set_backprop(net, p)
            (net(vectors()) ** 3).sum().backward()
        results.append([q.grad for q in net.parameters()])
    assert_same(results[1], results[0], 1e-12)


def replica_of(net: nn.Module) -> nn.Module:
    """As `torch.nn.parallel.replicate` makes it on a GPU, whose parameters are copies with a graph."""
    replicas = {module: module._replicate_for_data_parallel() for module in net.modules()}  # type: ignore[operator]
    for module, replica in replicas.items():
        replica._former_parameters = OrderedDict()
        for name, child in module._modules.items():
            setattr(replica, name, child and replicas[child])
        for name, parameter in module._parameters.items():
            if parameter is not None:
                replica._former_parameters[name] = parameter * 1.0
                setattr(replica, name, replica._former_parameters[name])
    return replicas[net]


@pytest.mark.parametrize("policy", POLICIES)
def test_replicas_hand_gradients_to_the_parameters(policy: str) -> None:
    torch.manual_seed(0)
    shared = AdditiveCoupling(4, dense)
    net = Sequential(shared, AffineCoupling(4, dense, flip=True), OrthogonalMixing(4, init="random"), shared).double()
    (net(vectors()) ** 3).sum().backward()
    expected = [p.grad for p in net.parameters()]
    net.zero_grad(set_to_none=True)
    set_backprop(net, policy)
    for _ in range(2):
        replica = replica_of(net)
        (replica(vectors()) ** 3).sum().backward()
    assert_same([None if p.grad is None else p.grad / 2 for p in net.parameters()], expected, 1e-10)


@pytest.mark.parametrize("policy", SAVING)
def test_views_in_the_place_of_parameters_hand_them_gradients(policy: str) -> None:
    """FSDP sets them both as attributes and in the modules' tables."""
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = Sequential(AdditiveCoupling(4, dense), OrthogonalMixing(4, init="random")).double()
        set_backprop(net, p)
        parameters = list(net.parameters())
        for module in net.modules():
            for name in list(module._parameters):
                parameter: Any = module._parameters.pop(name)
                setattr(module, name, parameter * 1.0)
                module._parameters[name] = getattr(module, name)
        (net(vectors()) ** 3).sum().backward()
        results.append([q.grad for q in parameters])
    assert_same(results[1], results[0], 1e-12)


@pytest.mark.parametrize("policy", OWN)
def test_replicas_of_another_kind_are_refused_by_name(policy: str) -> None:
    torch.manual_seed(0)
    net = Sequential(AdditiveCoupling(4, dense)).double()
    set_backprop(net, policy)
    replica = replica_of(net)
    for module in replica.modules():
        del module._former_parameters
    with pytest.raises(RuntimeError, match=r"expected '.*subnet\.\d\.\w+' to be a parameter"):
        replica(vectors()).sum().backward()


def test_outputs_of_earlier_passes_are_freed() -> None:
    net, outputs = Sequential(AdditiveCoupling(4, dense)).double(), []
    set_backprop(net, "reversible")
    for _ in range(3):
        net.last = net(vectors())  # type: ignore[assignment]
        outputs.append(weakref.ref(net.last))
    assert [output() is None for output in outputs] == [True, True, False]


def overwrite(net: Sequential) -> None:
    with torch.no_grad():
        net[0].subnet_s.factor.mul_(2)  # type: ignore[union-attr]


def exchange(net: Sequential) -> None:
    net[0].subnet_s.factor = torch.zeros(2)  # type: ignore[union-attr]


def remove(net: Sequential) -> None:
    del net[0].subnet_s.factor  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [exchange, remove])
def test_gradients_are_those_of_what_forward_used(change: Callable[[Sequential], None]) -> None:
    results = []
    for policy in ("stored", "reversible"):
        factor = torch.ones(2, dtype=torch.float64, requires_grad=True)
        net = with_factor(factor, policy)
        loss = (net(vectors()) ** 3).sum()
        change(net)
        before = net[0].subnet_s.__dict__.get("factor")  # type: ignore[union-attr]
        loss.backward()
        assert net[0].subnet_s.__dict__.get("factor") is before  # type: ignore[union-attr]
        results.append([factor.grad])
    assert_same(results[1], results[0], 1e-12)


@pytest.mark.parametrize("policy", OWN)
def test_an_overwritten_attribute_is_refused_by_name(policy: str) -> None:
    net = with_factor(torch.ones(2, dtype=torch.float64, requires_grad=True), policy)
    loss = net(vectors()).sum()
    overwrite(net)
    with pytest.raises(RuntimeError, match=r"expected '.*factor' to keep its values"):
        loss.backward()


@pytest.mark.parametrize("policy", OWN)
def test_buffers_with_gradients_are_refused_by_name(policy: str) -> None:
    net = with_factor(torch.ones(2, dtype=torch.float64), policy)
    del net[0].subnet_s.factor  # type: ignore[union-attr]
    net[0].subnet_s.register_buffer("factor", torch.ones(2, dtype=torch.float64, requires_grad=True))  # type: ignore[union-attr]
    with pytest.raises(
        ValueError, match=r"expected buffers without gradients, got 'factor' of '.*subnet_s' \(Scaled\)"
    ):
        net(vectors())


@pytest.mark.parametrize("policy", OWN)
@pytest.mark.parametrize("lazy", [nn.LazyLinear, nn.LazyBatchNorm1d])
def test_parameters_without_shapes_are_refused_in_plain_words(lazy: Callable[..., nn.Module], policy: str) -> None:
    def subnet(dims_in: int, dims_out: int) -> nn.Module:
        layer = lazy(dims_out) if lazy is nn.LazyLinear else lazy(affine=False)
        return nn.Sequential(nn.Linear(dims_in, dims_out), layer)

    net = Sequential(AdditiveCoupling(4, subnet))
    set_backprop(net, policy)
    with pytest.raises(ValueError, match=rf"expected initialised parameters, got '.*subnet\.1' \({lazy.__name__}\)"):
        net(torch.randn(3, 4))
    with torch.no_grad():
        net(torch.randn(3, 4))
    net(torch.randn(3, 4)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
