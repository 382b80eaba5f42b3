"""Hooks of parameters see each gradient once and whole; parameters without influence have none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    AdditiveCoupling,
    AffineCoupling,
    Graph,
    InvertibleConv1x1,
    InvertibleModule,
    OnChannels,
    OrthogonalMixing,
    ResidualBlock,
    Sequential,
    Split,
    set_backprop,
)
from tests.invertible.engine.test_backprop import assert_same, loss_and_gradients, small_input, small_tree
from tests.invertible.table.samples import dense

SAVING = [p for p in POLICIES if p != "stored"]


def vectors() -> Tensor:
    return torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def every_rule() -> Sequential:
    """A shared coupling, and a leaf for each backward rule."""
    torch.manual_seed(0)
    shared = AdditiveCoupling(6, dense)
    parts = [shared, AffineCoupling(6, dense), OrthogonalMixing(6, init="random"), ResidualBlock(6, dense), shared]
    return Sequential(*parts, InvertibleConv1x1(6).inverted()).double()


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
def test_a_hook_changes_the_gradient_once(method: str, policy: str) -> None:
    results = []
    for p in ("stored", policy):
        net, seen = every_rule(), []
        for parameter in net.parameters():
            parameter.register_hook(lambda grad, seen=seen: seen.append(grad.clone()))
            parameter.register_hook(lambda grad: 0.1 * grad)
        set_backprop(net, p)
        outputs = getattr(net, method)(vectors().requires_grad_())
        sum((part**3).sum() for part in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()  # type: ignore[union-attr]
        assert len(seen) == len(list(net.parameters()))
        results.append([parameter.grad for parameter in net.parameters()])
    assert_same(results[1], results[0], tolerance=1e-8)


@pytest.mark.parametrize("policy", SAVING)
def test_hooks_after_accumulation_and_on_the_node_run_once(policy: str) -> None:
    counts = []
    for p in ("stored", policy):
        net, count = small_tree(), [0, 0]

        def accumulated(_: Tensor, count: list[int] = count) -> None:
            count[0] += 1

        def node_ran(*_: object, count: list[int] = count) -> None:
            count[1] += 1

        for parameter in net.parameters():
            parameter.register_post_accumulate_grad_hook(accumulated)
            torch.autograd.graph.get_gradient_edge(parameter).node.register_hook(node_ran)
        set_backprop(net, p)
        loss_and_gradients(net, small_input())
        counts.append(count)
    assert counts[0] == counts[1]


class KeepsParametersInAList(nn.Module):
    """A module that reads its weight past the table in which torch looks for parameters."""

    def __init__(self, dims_in: int, dims_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dims_out, dims_in) / 4)
        self.hidden = [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.hidden[0].mT)


@pytest.mark.parametrize("policy", ["reversible", "checkpoint"])
def test_parameters_that_a_module_also_holds_elsewhere(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = Sequential(*(AdditiveCoupling(6, KeepsParametersInAList, flip=bool(i % 2)) for i in range(2))).double()
        for module in net.modules():
            if isinstance(module, KeepsParametersInAList):
                module.hidden = [module.weight]
        set_backprop(net, p)
        results.append(loss_and_gradients(net, vectors())[1])
    assert_same(results[1], results[0])


@pytest.mark.parametrize("policy", SAVING)
def test_recurrent_subnets(policy: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self, dims_in: int, dims_out: int) -> None:
            super().__init__()
            self.cell, self.end = nn.LSTM(1, 4, batch_first=True), nn.Linear(4 * dims_in, dims_out)

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.cell(x[..., None])[0].flatten(1))

    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = Sequential(AdditiveCoupling(6, Recurrent), AdditiveCoupling(6, Recurrent, flip=True)).double()
        set_backprop(net, p)
        results.append(loss_and_gradients(net, vectors())[1])
    assert_same(results[1], results[0])


def graph_of_two() -> InvertibleModule:
    graph = Graph()
    first, second = graph.add(Split([2, 4]), graph.input(6, name="x"), name="split")
    y = graph.add(AdditiveCoupling(2, dense), first, name="additive")
    return graph.net(y, graph.add(AffineCoupling(4, dense), second, name="affine"))


WITHOUT_INFLUENCE = {
    "logdet alone": (lambda: every_rule(), lambda net, x: net.forward_and_logdet(x)[1]),
    "logdet of a part of the channels": (
        lambda: Sequential(OrthogonalMixing(6), OnChannels(AffineCoupling(4, dense), 2), AdditiveCoupling(6, dense)),
        lambda net, x: net.forward_and_logdet(x)[1],
    ),
    "output alone": (lambda: every_rule(), lambda net, x: net.forward_and_logdet(x)[0]),
    "one output of two": (graph_of_two, lambda net, x: net(x)[0]),
    "the other output": (graph_of_two, lambda net, x: net(x)[1]),
    "logdet of two outputs": (graph_of_two, lambda net, x: net.forward_and_logdet(x)[1]),
    "one output and logdet": (graph_of_two, lambda net, x: sum_of(net.forward_and_logdet(x))),
}


def sum_of(result: tuple[tuple[Tensor, ...], Tensor]) -> Tensor:
    (y, _), logdet = result
    return y.sum() + logdet.sum()


@pytest.mark.parametrize("policy", ["reversible", "checkpoint"])
@pytest.mark.parametrize("case", WITHOUT_INFLUENCE)
def test_parameters_without_influence_have_no_gradient(case: str, policy: str) -> None:
    construct, output = WITHOUT_INFLUENCE[case]
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net, x = construct().double(), vectors().requires_grad_()
        set_backprop(net, p)
        (output(net, x) ** 2).sum().backward()
        results.append([x.grad, *(q.grad for q in net.parameters())])
    assert_same(results[1], results[0], tolerance=1e-8)  # also that the same ones are None
