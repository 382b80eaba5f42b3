"""Graphs and reshaping: the layers' oracles, custom layers, conditions for chosen parts, errors that name the node."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, Inverse, InvertibleModule, OrthogonalMixing, set_backprop
from src.invertible.graph import Graph, GraphNet
from src.invertible.inspection.graph_plot import plot_graph
from src.invertible.layers.actnorm import ActNorm
from src.invertible.layers.affine import AffineCoupling
from src.invertible.layers.reshaping import Concat, Reshape, Split
from src.invertible.module import VolumePreserving
from src.invertible.on_conditions import OnConditions
from src.invertible.shapes import sequential_for
from tests.invertible.layers.test_oracles import gradients
from tests.invertible.table import graph as graph_table
from tests.invertible.table.samples import dense, subnet

NAMES = list(graph_table.LAYERS)


class FixedMultiply(InvertibleModule):
    """FrEIA's first example of a custom module: each channel times 1 or 2, chosen once."""

    factor: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.randint(1, 3, (channels,)).double())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def inverse(self, y: Tensor) -> Tensor:
        return y / self.factor

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self(x), self.factor.log().sum().expand(x.shape[0])


class ConditionalSwap(VolumePreserving):
    """FrEIA's second example: exchange the two tensors of a state unless the condition is positive."""

    takes_condition = True

    def forward(self, x: tuple[Tensor, Tensor], condition: Tensor) -> tuple[Tensor, Tensor]:
        keep = condition.flatten()[:, None] > 0
        return torch.where(keep, x[0], x[1]), torch.where(keep, x[1], x[0])

    inverse = forward


def freia_example() -> GraphNet:
    """The "more complicated example" of FrEIA's documentation."""
    graph = Graph()
    x1, x2 = graph.input(2, name="input_1"), graph.input(2, name="input_2")
    condition = graph.condition(1, name="condition")
    multiplied = graph.add(FixedMultiply(2), x1, name="mult_1")
    swapped: Any = graph.add(ConditionalSwap(), multiplied, x2, condition=condition, name="swap")
    z2 = graph.add(FixedMultiply(2), swapped[1], name="mult_2")
    return graph.net(swapped[0], z2)


def test_freias_example_of_custom_modules() -> None:
    torch.manual_seed(0)
    net = freia_example()
    x1, x2, c = torch.randn(10, 2).double(), torch.randn(10, 2).double(), torch.randn(10, 1)
    (z1, z2), logdet = net.forward_and_logdet((x1, x2), c)
    m1, m2 = net.part("mult_1").factor, net.part("mult_2").factor
    keep = c > 0
    assert torch.equal(z1, torch.where(keep, m1 * x1, x2))
    assert torch.equal(z2, m2 * torch.where(keep, x2, m1 * x1))
    torch.testing.assert_close(logdet, torch.full((10,), (m1.log() + m2.log()).sum().item(), dtype=torch.float64))
    for found, expected in zip(net.inverse((z1, z2), c), (x1, x2), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    _, back = Inverse(net).forward_and_logdet((z1, z2), c)
    torch.testing.assert_close(back, -logdet)


class Steered(nn.Module):
    """A graph with two conditions: one part reads one of them, one the other, one both in turned order, one none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.encode = nn.Linear(2, 3)
        graph = Graph()
        a, b = graph.input(4, name="a"), graph.input(4, name="b")
        label, image = graph.condition(2, name="label"), graph.condition(3, name="image")

        def coupling(channels: int) -> AffineCoupling:
            return AffineCoupling(4, dense, condition_channels=channels)

        a = graph.add(coupling(2), a, condition=label, name="by_label")
        b = graph.add(coupling(3), b, condition=image, name="by_image")
        ab: Any = graph.add(Concat([4, 4]), a, b, name="join")
        ab = graph.add(Reshape((8,), (4, 2)), ab, name="reshape")
        ab = graph.add(OrthogonalMixing(4, init="random"), ab, name="mixing")
        ab = graph.add(Reshape((4, 2), (8,)), ab, name="flatten")
        ab = graph.add(AffineCoupling(8, dense, condition_channels=5), ab, condition=(image, label), name="by_both")
        chain = sequential_for((8,), lambda s: AdditiveCoupling(s[0], dense), lambda s: OrthogonalMixing(s[0]))
        chain.add_module("steered", AffineCoupling(8, dense, condition_channels=2))
        self.graph = graph.net(graph.add(chain, ab, condition=label, name="chain"))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.arange(a.shape[0]) % 3
        return self.graph.forward_and_logdet((a, b), (self.embedding(labels), self.encode(a[:, :2])))


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_parts_see_their_conditions_and_gradients_reach_the_conditions_networks(policy: str) -> None:
    torch.manual_seed(0)
    net = Steered().double()
    a, b = torch.randn(4, 4).double(), torch.randn(4, 4).double()
    results = []
    for chosen in ("stored", policy):
        copied = copy.deepcopy(net)
        set_backprop(copied, chosen)
        x = a.clone().requires_grad_()
        y, logdet = copied(x * 1.0, b * 1.0)
        ((y**3).sum() + (logdet**2).sum()).backward()
        results.append({"x": x.grad, **{name: p.grad for name, p in copied.named_parameters()}})
    for name, expected in results[0].items():
        assert expected is not None, name
        found = results[1][name]
        assert found is not None and (found - expected).abs().max() < 1e-9 * expected.abs().max().clamp(min=1), name


def test_turned_conditions_are_those_of_the_part_alone() -> None:
    torch.manual_seed(0)
    net = Steered().double().graph
    assert isinstance(net.part("by_both"), OnConditions)
    label, image, x = torch.randn(2, 2).double(), torch.randn(2, 3).double(), torch.randn(2, 8).double()
    expected = net.part("by_both").part(x, (image, label))
    assert torch.equal(net.part("by_both")(x, (label, image)), expected)
    with pytest.raises(ValueError, match=r"label of shape \(2,\), image of shape \(3,\), .* got shapes \[\(2,\)\]"):
        net((x[:, :4], x[:, 4:]), (label,))
    with pytest.raises(ValueError, match="expected at least 2 conditions, got 1"):
        net.part("by_both")(x, (label,))


def test_a_graph_is_copied_and_pickled_with_its_names() -> None:
    net = freia_example()
    assert list(net.state_dict()) == ["mult_1.factor", "mult_2.factor"]
    x = (torch.randn(3, 2).double(), torch.randn(3, 2).double())
    c = torch.randn(3, 1)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(torch.equal(a, b) for a, b in zip(net(x, c), other(x, c), strict=True))


def test_the_printed_graph() -> None:
    lines = [line.split("  ->") for line in freia_example().describe().splitlines()]
    assert [(" ".join(left.split()), right) for left, right in lines] == [
        ("input_1 input", " 2"),
        ("input_2 input", " 2"),
        ("condition condition", " 1"),
        ("mult_1 FixedMultiply input_1", " 2"),
        ("swap ConditionalSwap mult_1, input_2 | condition", " 2, 2"),
        ("mult_2 FixedMultiply swap.1", " 2"),
        ("outputs swap, mult_2", " 2, 2"),
    ]
    assert len({len(left) for left, _ in lines}) == 1, "columns are aligned"


def test_the_plotted_graph(tmp_path: Path) -> None:
    figure = plot_graph(freia_example(), tmp_path / "graph.png")
    texts = [text.get_text() for text in figure.axes[0].texts]
    for label in ("input_1", "condition\n1", "swap\nConditionalSwap", "output 1"):
        assert label in texts
    columns = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert columns["input_1"] == columns["input_2"] == 0
    assert [columns[f"{n}"] for n in ("mult_1\nFixedMultiply", "swap\nConditionalSwap", "output 1")] == [1, 2, 4]
    assert imread(tmp_path / "graph.png").std() > 0


def test_errors_at_construction_name_the_node() -> None:
    graph = Graph()
    x, c = graph.input(4, 8, 8, name="x"), graph.condition(2, name="c")
    with pytest.raises(ValueError, match=r"node 'narrow' \(OrthogonalMixing\): expected 3 channels, got 4.*4×8×8"):
        graph.add(OrthogonalMixing(3), x, name="narrow")
    with pytest.raises(ValueError, match=r"node 'two' \(Split\): expected one tensor.*4×8×8, 2"):
        graph.add(Split([2, 2]), x, graph.input(2, name="v"), name="two")
    with pytest.raises(ValueError, match=r"node 'steered'.*expected no condition, got c"):
        graph.add(Split([2, 2]), x, condition=c, name="steered")
    with pytest.raises(ValueError, match=r"node 'unsteered'.*expected a condition, got none"):
        graph.add(ConditionalSwap(), x, name="unsteered")
    with pytest.raises(ValueError, match=r"node 'lossy'.*equal numbers of elements.*, got 4×8×8 -> 2×8×8"):
        graph.add(Lossy(), x, name="lossy")


class Lossy(InvertibleModule):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


def test_every_wire_is_used_once() -> None:
    graph = Graph()
    x, c = graph.input(4, name="x"), graph.condition(2, name="c")
    first: Any = graph.add(Split([1, 3]), x, name="split")
    for wires in [(x,), (first[0], first[0]), (c,), (Graph().input(4, name="other"),)]:
        with pytest.raises(ValueError, match=r"node 'again'.*expected unread wires of this graph"):
            graph.add(Concat([1, 1]), *wires, name="again")
    with pytest.raises(ValueError, match=r"node 'again'.*at least one input"):
        graph.add(Concat([1, 1]), name="again")
    with pytest.raises(ValueError, match=r"node 'again'.*expected conditions of this graph, got split"):
        graph.add(ConditionalSwap(), first[0], condition=first[1], name="again")
    with pytest.raises(ValueError, match=r"exactly once as an output \(split, split\.1\), got split"):
        graph.net(first[0])
    with pytest.raises(ValueError, match="as an output"):
        graph.net(*first, first[0])
    with pytest.raises(ValueError, match="every condition to be read by a part, got c, which none reads"):
        graph.net(*first)


@pytest.mark.parametrize("name", ["x", "a.b", "forward", "training", "nodes", "part", ""])
def test_names_are_new_and_fit_for_submodules(name: str) -> None:
    graph = Graph()
    graph.input(4, name="x")
    with pytest.raises(ValueError, match=r"no attribute of GraphNet|unused name"):
        graph.input(4, name=name)


def test_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 2 tensors \(input_1, input_2\), got 1"):
        freia_example()(torch.zeros(1, 2))


def test_finding_shapes_leaves_no_trace() -> None:
    graph = Graph()
    layer = ActNorm(4)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    graph.add(layer, graph.input(4, 6, name="x"), name="norm")
    assert torch.rand(1) == expected
    assert layer.training
    for key, value in layer.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_conditions_may_be_labels() -> None:
    class Embedded(AffineCoupling):
        def __init__(self) -> None:
            super().__init__(4, dense, condition_channels=2)
            self.embedding = nn.Embedding(3, 2)

        def log_scale_and_shift(self, read: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
            return super().log_scale_and_shift(read, self.embedding(condition))

    graph = Graph()
    label = graph.condition(name="label", dtype=torch.long)
    net = graph.net(graph.add(Embedded(), graph.input(4, name="x"), condition=label, name="coupling"))
    x = torch.randn(3, 4)
    torch.testing.assert_close(net.inverse(net(x, torch.arange(3)), torch.arange(3)), x)


def test_reshaping() -> None:
    x = torch.randn(2, 6, 4)
    first, second = Split([1, 3], dim=2)(x)
    assert torch.equal(first, x[:, :, :1]) and torch.equal(second, x[:, :, 1:])
    assert torch.equal(Concat([1, 3], dim=2)((first, second)), x)
    assert torch.equal(Reshape((6, 4))(x), x.flatten(1))
    assert torch.equal(Reshape((6, 4), (3, 8)).inverted()(x.reshape(2, 3, 8)), x)
    _, logdet = Split([2, 4]).forward_and_logdet(x)
    assert torch.equal(logdet, torch.zeros(2))


@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_split_into_one_part_and_its_join_change_nothing(policy: str, method: str) -> None:
    graph, coupling = Graph(), AffineCoupling(4, dense).double()
    part: Any = graph.add(Split([4]), graph.input(4, name="x"), name="split")
    part = graph.add(coupling, part, name="coupling")
    net = graph.net(graph.add(Concat([4]), part, name="join"))
    x = torch.randn(3, 4, dtype=torch.float64)
    found, expected = gradients(net, method, policy, x), gradients(coupling, method, "stored", x)
    torch.testing.assert_close(list(found.values()), list(expected.values()))


def test_reshaping_refuses() -> None:
    x = torch.zeros(2, 6, 4)
    with pytest.raises(ValueError, match=r"expected one tensor with size 5 in dimension 1, got shape \(2, 6, 4\)"):
        Split([2, 3])(x)
    with pytest.raises(ValueError, match=r"expected parts of sizes \[2, 4\] in dimension 1, got 2 tensors"):
        Concat([2, 4])((x, x))
    with pytest.raises(ValueError, match="expected positive sizes and dim >= 1"):
        Split([0, 6])
    with pytest.raises(ValueError, match="equal numbers of elements"):
        Reshape((2, 3), (5,))
    with pytest.raises(ValueError, match=r"expected one tensor of shape \(B, 24\), got shape \(2, 6, 4\)"):
        Reshape((24,), (6, 4))(x)


def test_a_sequence_is_made_for_the_shapes_that_reach_its_parts() -> None:
    net = sequential_for(
        (2, 4, 6),
        lambda shape: AdditiveCoupling(shape[0], subnet(2)),
        lambda shape: Reshape(shape),
        lambda shape: OrthogonalMixing(shape[0]),
    )
    x = torch.randn(3, 2, 4, 6)
    assert net(x).shape == (3, 48)
    steered = sequential_for((4,), lambda s: AffineCoupling(s[0], dense, condition_channels=2), condition_shapes=[(2,)])
    assert steered(torch.zeros(1, 4), torch.zeros(1, 2)).shape == (1, 4)
    with pytest.raises(ValueError, match=r"part 1 \(OrthogonalMixing\): expected 3 channels, got 2.*2×4×6"):
        sequential_for((2, 4, 6), lambda s: AdditiveCoupling(2, subnet(2)), lambda s: OrthogonalMixing(3))
    with pytest.raises(ValueError, match=r"part 0 \(Split\): expected one output, got 2"):
        sequential_for((2, 4), lambda s: Split([1, 1]))
