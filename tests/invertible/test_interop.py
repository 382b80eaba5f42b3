"""Layers of FrEIA and memcnn in our nets and under our engine; each of FrEIA's by itself: `test_freia_modules.py`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, Sequential, set_backprop
from src.invertible.graph import Graph
from src.invertible.interop import ForeignModule, FreiaModule
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.layers.test_oracles import gradients
from tests.invertible.table.samples import dense, subnet

try:
    import FrEIA.framework as Ff
    import FrEIA.modules as Fm
except ImportError:
    Fm = None

needs_freia = pytest.mark.skipif(Fm is None, reason="FrEIA is not installed")


@needs_freia
def test_freia_layers_in_a_graph_with_a_condition() -> None:
    torch.manual_seed(0)
    graph = Graph()
    x, c = graph.input(6, name="x"), graph.condition(2, name="c")
    parts: Any = graph.add(FreiaModule(Fm.Split([(6,)], section_sizes=[2, 4])), x, name="split")
    block = Fm.AllInOneBlock([(4,)], dims_c=[(2,)], subnet_constructor=dense)
    second = graph.add(FreiaModule(block), parts[1], condition=c, name="block")
    net = graph.net(graph.add(FreiaModule(Fm.Concat([(2,), (4,)])), parts[0], second, name="join")).double()
    embedding = nn.Linear(3, 2).double()
    state, label = torch.randn(5, 6).double(), torch.randn(5, 3).double()
    results = []
    for policy in POLICIES:
        set_backprop(net, policy)
        copies = copy.deepcopy(net), copy.deepcopy(embedding)
        y, logdet = copies[0].forward_and_logdet(state * 1.0, copies[1](label))
        ((y**3).sum() + (logdet**2).sum()).backward()
        results.append([p.grad for module in copies for p in module.parameters() if p.requires_grad])
        assert all(p is not None for p in results[-1])
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    condition = embedding(label).detach()
    assert (net.inverse(net(state, condition), condition) - state).abs().max() < 1e-6
    with pytest.raises(ValueError, match="expected a condition for FrEIA's AllInOneBlock, got none"):
        net(state)


@needs_freia
def test_an_actnorm_of_freia_is_not_started_by_the_graph_that_finds_its_shape() -> None:
    graph, x = Graph(), 3 * torch.randn(50, 4) + 1
    layer = FreiaModule(Fm.ActNorm([(4,)]))
    net = graph.net(graph.add(layer, graph.input(4, name="x"), name="norm"))
    torch.testing.assert_close(net(x).std(0), torch.ones(4))


@needs_freia
def test_a_sequence_of_freia_takes_the_conditions_of_its_parts() -> None:
    inside = Ff.SequenceINN(4)
    inside.append(Fm.PermuteRandom)
    inside.append(Fm.RNVPCouplingBlock, cond=1, cond_shape=(2,), subnet_constructor=dense)
    x, conditions = torch.randn(5, 4), (torch.randn(5, 3), torch.randn(5, 2))
    net = Sequential(FreiaModule(inside))
    expected, expected_logdet = inside(x, c=conditions)
    y, logdet = net.forward_and_logdet(x, conditions)
    assert torch.equal(y, expected) and torch.equal(logdet, expected_logdet)
    torch.testing.assert_close(net.inverse(y, conditions), x)


@needs_freia
def test_a_glow_chain_of_freias_keeps_one_state_at_any_depth() -> None:
    saved = {}
    x = torch.randn(2, 8, 16, 16).requires_grad_()
    for depth in (4, 16):
        chain = [FreiaModule(Fm.GLOWCouplingBlock([(8, 16, 16)], subnet_constructor=subnet(2))) for _ in range(depth)]
        for policy in ("reversible", "stored"):
            net = Sequential(*chain)
            set_backprop(net, policy)
            saved[policy, depth] = saved_bytes(net, x)
    assert saved["reversible", 16] == saved["reversible", 4] == x.numel() * x.element_size()
    assert saved["stored", 16] > 3.5 * saved["stored", 4]


def test_memcnns_coupling_in_our_net() -> None:
    from memcnn.models.additive import AdditiveCoupling as TheirCoupling

    torch.manual_seed(0)
    their = TheirCoupling(Fm=nn.Sequential(nn.Linear(2, 2), nn.Tanh()), Gm=nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    net = Sequential(AdditiveCoupling(4, dense), ForeignModule(their), AdditiveCoupling(4, dense, flip=True)).double()
    x = torch.randn(3, 4).double()
    assert torch.equal(net[1](x), their(x))
    assert (net.inverse(net(x)) - x).abs().max() < 1e-12
    for policy in POLICIES:
        expected, found = gradients(net, "forward", "stored", x), gradients(net, "forward", policy, x)
        for key, value in expected.items():
            assert (found[key] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1.0), key
    with pytest.raises(NotImplementedError, match="ForeignModule has no log-determinant"):
        net.forward_and_logdet(x)


def test_what_does_not_fit_is_refused() -> None:
    import memcnn

    class TwoWays(nn.Identity):
        def inverse(self, y: Tensor) -> Tensor:
            return y

    with pytest.raises(TypeError, match="expected a module with forward and inverse, got Linear"):
        ForeignModule(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no memcnn\.InvertibleModuleWrapper"):
        ForeignModule(memcnn.InvertibleModuleWrapper(TwoWays()))
    with pytest.raises(TypeError, match="expected an InvertibleModule of FrEIA, got Linear"):
        FreiaModule(nn.Linear(2, 2))
