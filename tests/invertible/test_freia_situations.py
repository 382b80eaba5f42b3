"""The situations of FrEIA's own tests, built of our layers and of theirs with equal weights, in float64.

Theirs are ``test_conditioning.py``, ``test_reversible_graph_net.py``, ``test_graph_inn.py``, ``test_sequence.py`` and
``test_pushed.py`` of its main branch. The sizes are smaller, the wiring is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    ActNorm,
    AffineCoupling,
    AllInOneBlock,
    InvertibleModule,
    ResidualBlock,
    TwoSidedCoupling,
    set_backprop,
)
from src.invertible.graph import Graph, GraphNet
from src.invertible.layers.linear import Permutation
from src.invertible.layers.resampling import HaarDownsampling
from src.invertible.layers.reshaping import Concat, Reshape, Split
from src.invertible.module import tensors_of
from src.invertible.shapes import as_state
from tests.invertible.table.samples import dense, subnet
from tests.invertible.test_freia import COUPLINGS
from tests.invertible.test_freia_layers import subnets
from tests.marks import slow

Ff = pytest.importorskip("FrEIA.framework")
Fm = pytest.importorskip("FrEIA.modules")
pytestmark = pytest.mark.usefixtures("double_precision")

TOLERANCE = 1e-9
BATCH, SIDE = 3, 4
IMAGE, SMALL_IMAGE = (3, SIDE, SIDE), (1, SIDE, SIDE)


@dataclass
class Situation:
    """Two networks that are the same map; ``weights`` are parameters that stand for the same, ours before theirs."""

    ours: GraphNet
    theirs: nn.Module
    weights: list[tuple[nn.Parameter, nn.Parameter]]
    inputs: list[tuple[int, ...]]
    conditions: list[tuple[int, ...]] = field(default_factory=list)


def coupling(channels: int, constructor: Any, condition_channels: int = 0) -> TwoSidedCoupling:
    """Like FrEIA's ``RNVPCouplingBlock`` with ``clamp=1``."""
    return TwoSidedCoupling(
        AffineCoupling, channels, constructor, split=0.5, clamp=1.0, condition_channels=condition_channels
    )


def weights_of(*pairs: tuple[InvertibleModule, nn.Module]) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """The parameters of our couplings beside those of theirs."""
    names = COUPLINGS["rnvp"][2].items()
    return subnets(*((ours.get_submodule(a), theirs.get_submodule(b)) for ours, theirs in pairs for a, b in names))


RNVP: dict[str, Any] = {"subnet_constructor": subnet(2), "clamp": 1.0}
RNVP_DENSE: dict[str, Any] = {"subnet_constructor": dense, "clamp": 1.0}


def three_conditions() -> Situation:
    """An image steers a coupling of images, two vectors together one of vectors (``ConditioningTest``)."""
    conditions = [SMALL_IMAGE, (5,), (2,)]
    graph = Graph()
    x = graph.input(*IMAGE, name="x")
    c1, c2, c3 = (graph.condition(*shape, name=f"c{index}") for index, shape in enumerate(conditions))
    convolutional, flat = coupling(3, subnet(2), 1), coupling(3 * SIDE**2, dense, 7)
    x = graph.add(convolutional, x, condition=c1, name="convolutional")
    x = graph.add(Reshape(IMAGE), x, name="flatten")
    net = graph.net(graph.add(flat, x, condition=(c2, c3), name="flat"))

    node = Ff.InputNode(*IMAGE)
    d1, d2, d3 = (Ff.ConditionNode(*shape) for shape in conditions)
    conv = Ff.Node(node, Fm.RNVPCouplingBlock, RNVP, conditions=d1)
    flatten = Ff.Node(conv, Fm.Flatten, {})
    linear = Ff.Node(flatten, Fm.RNVPCouplingBlock, RNVP_DENSE, conditions=[d2, d3])
    theirs = Ff.GraphINN([node, d1, conv, flatten, d2, d3, linear, Ff.OutputNode(linear)])
    weights = weights_of((convolutional, conv.module), (flat, linear.module))
    return Situation(net, theirs, weights, [IMAGE], conditions)


def branches() -> Situation:
    """Split, permute one branch, couple the other by a condition, join, Haar (``ComplexComputeGraph``)."""
    flat, rest = (SIDE**2,), (2, SIDE, SIDE)
    node, condition = Ff.InputNode(*IMAGE), Ff.ConditionNode(*SMALL_IMAGE)
    split = Ff.Node(node, Fm.Split, {"section_sizes": [1, 2], "dim": 0})
    flatten1 = Ff.Node(split.out0, Fm.Flatten, {})
    permuted = Ff.Node(flatten1, Fm.PermuteRandom, {"seed": 123})
    unflatten1 = Ff.Node(permuted, Fm.Reshape, {"output_dims": SMALL_IMAGE})
    conv = Ff.Node(split.out1, Fm.RNVPCouplingBlock, RNVP, conditions=condition)
    flatten2 = Ff.Node(conv, Fm.Flatten, {})
    linear = Ff.Node(flatten2, Fm.RNVPCouplingBlock, RNVP_DENSE)
    unflatten2 = Ff.Node(linear, Fm.Reshape, {"output_dims": rest})
    concat = Ff.Node([unflatten1.out0, unflatten2.out0], Fm.Concat, {"dim": 0})
    haar = Ff.Node(concat, Fm.HaarDownsampling, {})
    middle = [split, flatten1, permuted, unflatten1, conv, flatten2, linear, unflatten2, concat, haar]
    theirs = Ff.GraphINN([node, condition, *middle, Ff.OutputNode(haar)])

    graph = Graph()
    x, c = graph.input(*IMAGE, name="x"), graph.condition(*SMALL_IMAGE, name="c")
    convolutional, vectors = coupling(2, subnet(2), 1), coupling(2 * SIDE**2, dense)
    first, second = graph.add(Split([1, 2]), x, name="split")  # type: ignore[misc]
    first = graph.add(Reshape(SMALL_IMAGE), first, name="flatten_first")
    first = graph.add(Permutation(*flat, permuted.module.perm.tolist()), first, name="permutation")
    first = graph.add(Reshape(flat, SMALL_IMAGE), first, name="unflatten_first")
    second = graph.add(convolutional, second, condition=c, name="convolutional")
    second = graph.add(Reshape(rest), second, name="flatten_second")
    second = graph.add(vectors, second, name="vectors")
    second = graph.add(Reshape((2 * SIDE**2,), rest), second, name="unflatten_second")
    both = graph.add(Concat([1, 2]), first, second, name="join")
    net = graph.net(graph.add(HaarDownsampling(3, spatial_dims=2), both, name="haar"))
    weights = weights_of((convolutional, conv.module), (vectors, linear.module))
    return Situation(net, theirs, weights, [IMAGE], [SMALL_IMAGE])


def two_inputs_and_outputs() -> Situation:
    """Two inputs meet and part again, in another order."""
    graph = Graph()
    a, b = graph.input(2, name="a"), graph.input(3, name="b")
    first, joint = coupling(3, dense), coupling(5, dense)
    b = graph.add(first, b, name="first")  # type: ignore[assignment]
    both = graph.add(joint, graph.add(Concat([2, 3]), a, b, name="join"), name="joint")  # type: ignore[arg-type]
    short, long = graph.add(Split([1, 4]), both, name="split")  # type: ignore[misc, arg-type]
    net = graph.net(long, short)

    node_a, node_b = Ff.InputNode(2), Ff.InputNode(3)
    their_first = Ff.Node(node_b, Fm.RNVPCouplingBlock, RNVP_DENSE)
    join = Ff.Node([node_a.out0, their_first.out0], Fm.Concat, {})
    their_joint = Ff.Node(join, Fm.RNVPCouplingBlock, RNVP_DENSE)
    split = Ff.Node(their_joint, Fm.Split, {"section_sizes": [1, 4]})
    outputs = [Ff.OutputNode(split.out1), Ff.OutputNode(split.out0)]
    theirs = Ff.GraphINN([node_a, node_b, their_first, join, their_joint, split, *outputs])
    weights = weights_of((first, their_first.module), (joint, their_joint.module))
    return Situation(net, theirs, weights, [(2,), (3,)])


def sequence() -> Situation:
    """All blocks of a chain see the same condition (``SequenceINN`` with ``cond``)."""
    theirs = Ff.SequenceINN(4)
    for _ in range(3):
        theirs.append(Fm.RNVPCouplingBlock, cond=0, cond_shape=(2,), **RNVP_DENSE)
    graph = Graph()
    x, c = graph.input(4, name="x"), graph.condition(2, name="c")
    parts = [coupling(4, dense, 2) for _ in range(3)]
    for index, part in enumerate(parts):
        x = graph.add(part, x, condition=c, name=f"block_{index}")  # type: ignore[assignment]
    weights = weights_of(*zip(parts, theirs.module_list, strict=True))
    return Situation(graph.net(x), theirs, weights, [(4,)], [(2,)])


SITUATIONS: dict[str, Callable[[], Situation]] = {
    "three conditions": three_conditions,
    "branches": branches,
    "two inputs and outputs": two_inputs_and_outputs,
    "sequence": sequence,
}


def gradients(y: Any, logdet: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Of a loss of outputs and log-determinants. memcnn's layers take ``backward`` only."""
    for tensor in inputs:
        tensor.grad = None
    ((logdet**2).sum() + torch.stack([(part**3).sum() for part in tensors_of(y)]).sum()).backward()
    return [tensor.grad for tensor in inputs]


@pytest.mark.parametrize("policy", ["reversible", *(slow(p) for p in POLICIES if p != "reversible")])
@pytest.mark.parametrize("name", SITUATIONS)
def test_values_and_gradients_are_theirs_in_both_directions(name: str, policy: str) -> None:
    situation = SITUATIONS[name]()
    set_backprop(situation.ours, policy)
    with torch.no_grad():
        for mine, their in situation.weights:
            mine.copy_(their)
    ours, theirs = (list(side) for side in zip(*situation.weights, strict=True))
    states = [torch.randn(BATCH, *shape) for shape in situation.inputs]
    conditions = [torch.randn(BATCH, *shape, requires_grad=True) for shape in situation.conditions]
    for method, rev in (("forward_and_logdet", False), ("inverse_and_logdet", True)):
        x = [state.clone().requires_grad_() for state in states]
        call = getattr(situation.ours, method)
        y, logdet = call(as_state([1.0 * part for part in x]), *([as_state(conditions)] if conditions else []))
        found = [*tensors_of(y), logdet, *gradients(y, logdet, [*x, *conditions, *ours])]
        # Theirs may write into what it gets.
        y, logdet = situation.theirs(as_state([1.0 * part for part in x]), c=conditions, rev=rev)
        expected = [*tensors_of(y), logdet, *gradients(y, logdet, [*x, *conditions, *theirs])]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        states = [part.detach() for part in tensors_of(y)]


@pytest.mark.parametrize("wrong", [[SMALL_IMAGE, (2,), (5,)], [(1, SIDE, SIDE + 1), (5,), (2,)], [SMALL_IMAGE, (5,)]])
def test_conditions_of_another_order_size_or_number_are_refused(wrong: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        three_conditions().ours(torch.randn(BATCH, *IMAGE), tuple(torch.randn(BATCH, *shape) for shape in wrong))


@pytest.mark.skipif(not hasattr(Ff, "FeedForwardNode"), reason="FrEIA's release 0.2 has no FeedForwardNode")
def test_a_network_that_reads_a_branch_stands_between_two_graphs() -> None:
    """``test_double_ff_graph``: theirs is a node of the graph; here the branch that it reads is computed first."""
    embed = nn.Linear(2, 3)
    node = Ff.InputNode(4)
    split = Ff.Node(node, Fm.Split, {"section_sizes": 2})
    read = Ff.FeedForwardNode(split.out0, (3,), lambda: embed)
    their_first = Ff.Node(split.out0, Fm.RNVPCouplingBlock, RNVP_DENSE)
    their_second = Ff.Node(split.out1, Fm.RNVPCouplingBlock, RNVP_DENSE, read)
    join = Ff.Node([their_first.out0, their_second.out0], Fm.Concat, {})
    theirs = Ff.GraphINN([node, split, read, their_first, their_second, join, Ff.OutputNode(join)])

    first, second = coupling(2, dense), coupling(2, dense, 3)
    with torch.no_grad():
        for mine, their in weights_of((first, their_first.module), (second, their_second.module)):
            mine.copy_(their)
    x = torch.randn(BATCH, 4)
    a, b = x.chunk(2, dim=1)
    (y_a, logdet_a), (y_b, logdet_b) = first.forward_and_logdet(a), second.forward_and_logdet(b, embed(a))
    expected, expected_logdet = theirs(x)
    torch.testing.assert_close(torch.cat((y_a, y_b), dim=1), expected)
    torch.testing.assert_close(logdet_a + logdet_b, expected_logdet)
    a = first.inverse(y_a)
    torch.testing.assert_close(torch.cat((a, second.inverse(y_b, embed(a))), dim=1), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AllInOneBlock((8,), dense), r"expected a number of channels, got \(8,\)"),
        (lambda: AffineCoupling((8,), dense), r"expected a number of channels, got \(8,\)"),
        (lambda: Permutation(torch.tensor([1, 0])), r"expected a number of channels, got tensor"),
        (lambda: AffineCoupling(8, nn.Linear(4, 8)), r"called as subnet\(4, 4\), got a network, Linear"),
        (lambda: ResidualBlock(8, nn.Linear(4, 8)), r"called as subnet\(8, 8\), got a network, Linear"),
        (lambda: Graph().add(ActNorm, name="norm"), "node 'norm' .*: expected an InvertibleModule, got <class"),
        (lambda: Graph().add(nn.ReLU(), name="act"), r"node 'act' \(ReLU\): expected an InvertibleModule, got ReLU"),
    ],
)
def test_what_freia_takes_and_we_do_not_is_said_in_plain_words(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        build()
