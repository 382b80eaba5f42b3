"""Leaves that keep their input, and the measurement of what is rebuilt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    AdditiveCoupling,
    Inverse,
    InvertibleConv1x1,
    InvertibleModule,
    OnChannels,
    Sequential,
    set_backprop,
)
from src.invertible.engine.reversible import keep_input, keeps_input
from src.invertible.graph import Graph
from src.invertible.inspection.reconstruction import LeafNames, reconstruction_errors, relative_error, relative_errors
from src.invertible.layers.affine import AffineCoupling
from src.invertible.layers.reshaping import Concat, Split
from tests.invertible.engine.test_backprop import (
    assert_same,
    convolutional,
    loss_and_gradients,
    saved_bytes,
    small_input,
    small_tree,
)
from tests.invertible.table.graph import branches
from tests.invertible.table.samples import dense


class Misses(InvertibleModule):
    """``y = s x``, whose inverse is wrong by one per cent."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.s * x

    def inverse(self, y: Tensor) -> Tensor:
        return 1.01 * y / self.s

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.s.log() * x[0].numel() * x.new_ones(x.shape[0])


@pytest.mark.parametrize("kept", [[0], [2], [0, 1, 2, 3, 4]])
def test_gradients_of_kept_leaves_are_the_same(kept: list[int]) -> None:
    results = []
    for policy in ("stored", "reversible"):
        net = small_tree("batch", dropout=0.3)
        for index in kept:
            keep_input(net[index])
        set_backprop(net, policy)
        torch.manual_seed(3)
        results.append(loss_and_gradients(net, small_input()))
    assert torch.equal(results[0][0], results[1][0])
    assert_same(results[1][1], results[0][1])


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet"])
def test_a_leaf_with_a_wrong_inverse_is_harmless_once_its_input_is_kept(method: str) -> None:
    torch.manual_seed(0)
    first, last = small_tree(), small_tree()
    results = {}
    for name in ("stored", "rebuilt", "kept"):
        wrong = Misses()
        net = Sequential(first, OnChannels(wrong, 1), last).double()
        keep_input(wrong, name == "kept")
        set_backprop(net, "stored" if name == "stored" else "reversible")
        x = small_input().requires_grad_()
        result = getattr(copy.deepcopy(net), method)(x)
        outputs = result if isinstance(result, tuple) else (result,)
        # Under the inverse, the stored graph differentiates the wrong inverse, as the engine does from a kept input.
        (results[name],) = torch.autograd.grad(sum((o**3).sum() for o in outputs), x)
    if method != "inverse":
        assert (results["rebuilt"] - results["stored"]).abs().max() > 1e-3 * results["stored"].abs().max()
    assert_same([results["kept"]], [results["stored"]])


def test_saved_bytes_grow_by_one_state_per_kept_leaf() -> None:
    net, x = small_tree(), small_input().requires_grad_()
    set_backprop(net, "reversible")
    state = x.numel() * x.element_size()
    h = x * 1.0
    assert saved_bytes(net, h) == state
    keep_input(net[1])
    assert saved_bytes(net, h) == 2 * state
    keep_input(net[3].inner)  # two of four channels: a copy of these, not the whole state that they lie in
    assert saved_bytes(net, h) == 2.5 * state
    keep_input(net[1], False)
    assert saved_bytes(net, h) == 1.5 * state


def test_retain_graph_with_kept_leaves() -> None:
    net = small_tree(dropout=0.3)
    keep_input(net)
    set_backprop(net, "reversible")
    x = small_input().requires_grad_()
    loss = (net(x) ** 2).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)


def test_kept_inputs_of_several_tensors_and_of_inverses() -> None:
    results = []
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        net = branches(1, (8,)).double()
        keep_input(net.part("join"))
        keep_input(net.part("mixing"))
        set_backprop(net, policy)
        results.append(loss_and_gradients(Inverse(net), torch.randn(2, 5, 8).double())[1])
    assert_same(results[1], results[0])
    assert keeps_input(net.part("mixing").inverted()) and not keeps_input(net.part("coupling").inverted())


def test_errors_are_those_of_the_walk_back() -> None:
    torch.manual_seed(0)
    net = Sequential(Misses(), small_tree(), Misses(), OnChannels(Misses(), 2)).double()
    x = small_input()
    found = reconstruction_errors(net, x)
    names = [LeafNames(net)(error.leaf) for error in found]
    assert names == ["0", "1.0", "1.1", "1.2", "1.3.inner", "1.4", "2", "3.inner"]
    own = {name: error.own for name, error in zip(names, found, strict=True)}
    assert own["0"] == pytest.approx(0.01) and own["2"] == pytest.approx(0.01) and own["1.2"] < 1e-14
    rebuilt = {name: error.rebuilt for name, error in zip(names, found, strict=True)}
    assert rebuilt["3.inner"] == pytest.approx(0.01)
    assert rebuilt["2"] > 0.012 and rebuilt["1.2"] > 1e-3, "errors are handed on"
    # The same, as the engine does it: the input that the whole walk arrives at.
    assert rebuilt["0"] == pytest.approx(relative_error(net.inverse(net(x)).detach(), x))


def test_masks_are_those_of_the_forward_pass_in_any_memory_layout() -> None:
    torch.manual_seed(0)
    net = Sequential(small_tree(dropout=0.3), InvertibleConv1x1(4)).double()
    assert all(max(error.own, error.rebuilt) < 1e-12 for error in reconstruction_errors(net, small_input()))


def test_errors_end_where_the_state_is_exact() -> None:
    net = Sequential(Misses(), small_tree(), Misses(), Misses()).double()
    found = reconstruction_errors(net, small_input(), exact_past=5e-3)
    assert [error.rebuilt for error in found] == pytest.approx([0.01, *[0.0] * 5, 0.01, 0.01], abs=1e-12)
    keep_input(net[2])
    found = reconstruction_errors(net, small_input())
    assert [error.rebuilt for error in found] == pytest.approx([0.01, *[0.0] * 5, 0.0, 0.01], abs=1e-12)
    assert found[-2].own == pytest.approx(0.01)


def test_measuring_leaves_no_trace() -> None:
    net = small_tree("batch", dropout=0.5)
    x = small_input()
    before, buffers = x.clone(), {name: value.clone() for name, value in net.named_buffers()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    errors = reconstruction_errors(net, x)
    assert max(error.rebuilt for error in errors) < 1e-12, "same dropout masks, same statistics"
    assert torch.rand(1) == expected and torch.equal(x, before)
    for name, value in net.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_errors_in_a_graph_of_several_tensors_under_a_condition() -> None:
    graph = Graph()
    x, c = graph.input(4, name="x"), graph.condition(2, name="c")
    parts: Any = graph.add(Split([1, 3]), x, name="split")
    y = graph.add(AffineCoupling(3, dense, condition_channels=2), parts[1], condition=c, name="coupling")
    net = graph.net(graph.add(Concat([1, 3]), parts[0], y, name="join")).double()
    found = reconstruction_errors(net, torch.randn(3, 4).double(), torch.randn(3, 2).double())
    assert len(found) == 3 and max(error.rebuilt for error in found) < 1e-12


def test_the_error_is_that_of_the_worst_sample_over_all_tensors_of_the_state() -> None:
    expected = (torch.tensor([[3.0], [1e6]]), torch.tensor([[4.0], [1e6]]))
    found = (torch.tensor([[3.3], [1e6]]), torch.tensor([[4.4], [1e6]]))
    assert relative_error(found, expected) == pytest.approx(0.1, rel=1e-4)
    assert relative_error((torch.zeros(2, 1), torch.ones(2, 1)), (torch.zeros(2, 1), torch.zeros(2, 1))) == 1.0


def test_relative_errors_are_those_of_each_sample() -> None:
    found, expected = torch.tensor([[3.3, 4.4], [0.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 0.0], [0, 0]])
    errors = relative_errors(found, expected)
    assert errors.dtype == torch.float64
    assert errors.tolist() == pytest.approx([0.1, 2.0, 0.0], rel=1e-6)
    assert relative_errors(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert relative_error(torch.zeros(0, 3), torch.zeros(0, 3)) == 0.0


def test_names_of_leaves_that_the_engine_inverts() -> None:
    tree = Sequential(convolutional_pair())
    net = nn.ModuleDict({"flow": Inverse(tree)})
    names = [LeafNames(net)(error.leaf) for error in reconstruction_errors(net["flow"], small_input())]
    assert names == ["flow.module.0.1⁻¹", "flow.module.0.0⁻¹"]


def convolutional_pair() -> Sequential:
    return Sequential(AdditiveCoupling(4, convolutional()), AdditiveCoupling(4, convolutional())).double()
