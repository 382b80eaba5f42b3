"""Networks with parametrised weights inside ``torch.nn.utils.parametrize.cached``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from src.invertible import POLICIES, AdditiveCoupling, Sequential, set_backprop
from tests.invertible.engine.test_backprop import assert_same

SAVING = [p for p in POLICIES if p != "stored"]


def tree() -> Sequential:
    torch.manual_seed(0)
    shared = AdditiveCoupling(4, lambda i, o: nn.Sequential(weight_norm(nn.Linear(i, o)), nn.Tanh()))
    return Sequential(
        shared, AdditiveCoupling(4, lambda i, o: weight_norm(nn.Linear(i, o)), flip=True), shared
    ).double()


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("ends", ["before backward", "after backward"])
def test_parametrised_weights_get_their_gradients(ends: str, policy: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for p in ("stored", policy):
        net = tree()
        set_backprop(net, p)
        with parametrize.cached():
            penalty = net[1].subnet.weight.square().sum()  # type: ignore[union-attr]
            loss = (net(x) ** 3).sum() + net[0].subnet[0].weight.square().sum() + penalty  # type: ignore[union-attr, index]
            if ends == "after backward":
                loss.backward()
        if ends == "before backward":
            loss.backward()
        results.append([q.grad for q in net.parameters()])
    assert_same(results[1], results[0], 1e-12)
    assert parametrize._cache == {}
    with parametrize.cached():
        assert net[1].subnet.weight is net[1].subnet.weight  # type: ignore[union-attr]


def test_without_torchs_cache_nothing_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tree()
    set_backprop(net, "reversible")
    monkeypatch.delattr(parametrize, "_cache")
    net(torch.ones(2, 4, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
