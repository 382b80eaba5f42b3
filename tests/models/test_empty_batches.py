"""A batch of no samples: every layer and network gives an empty output, zero gradients, and stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, set_backprop
from src.invertible.layers.actnorm import ActNorm
from tests.invertible.table import NAMES, build
from tests.models import small_networks

pytestmark = pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning")
METHODS = ("forward", "inverse", "forward_and_logdet", "inverse_and_logdet")
# Those that go leaf by leaf take the same way through each method.
PER_LEAF = {"checkpoint": METHODS[2:], "memcnn": METHODS[2:]}


def step(net: nn.Module, call: Callable[[Tensor], object], x: Tensor) -> tuple[Tensor, ...]:
    """The outputs of a step of training on no samples, whose gradients are zero."""
    x = x[:0].clone().requires_grad_()
    result = call(x * 1.0)
    outputs = tuple(result) if isinstance(result, tuple) else (result,)
    torch.stack([part.sum() for part in outputs]).sum().backward()
    assert x.grad is None or x.grad.shape == x.shape
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name
    return outputs


@pytest.mark.parametrize("name", NAMES)
def test_layers(name: str) -> None:
    layer, x = build(name)
    start = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        y = copy.deepcopy(layer)(x)
    for policy in POLICIES:
        set_backprop(layer, policy)
        for method in PER_LEAF.get(policy, METHODS):
            state, result = (y, x) if method.startswith("inverse") else (x, y)
            outputs = step(layer, getattr(layer, method), state)
            assert outputs[0].shape == (0, *result.shape[1:])
            if method.endswith("logdet"):
                assert outputs[1].shape == (0,)
            for key, value in layer.state_dict().items():
                if isinstance(value, Tensor) and not key.endswith("num_batches_tracked"):
                    assert torch.equal(value, start[key]), key


@pytest.mark.parametrize("name", small_networks.fast_and_slow(small_networks.NETWORKS))
def test_networks(name: str) -> None:
    net, x = small_networks.build(name)
    with torch.no_grad():
        shape = net.eval()(x).shape
    net.train()
    for policy in POLICIES:
        set_backprop(net, policy)
        (y,) = step(net, net, x)
        assert y.shape == (0, *shape[1:])
        if name in small_networks.FLOWS:
            terms = step(net, net.log_likelihood, x)  # type: ignore[arg-type]
            assert [term.shape for term in terms] == [(0,)] * 3
            assert net.decode(y.detach()).shape == (0, *x.shape[1:])  # type: ignore[operator]


def test_actnorm_starts_from_the_first_batch_that_holds_samples() -> None:
    layer, x = ActNorm(3), 2 * torch.randn(50, 3, 4) + 1
    assert layer(x[:0]).shape == (0, 3, 4)
    assert not layer.initialized
    y = layer(x)
    torch.testing.assert_close(y.mean((0, 2)), torch.zeros(3), rtol=0, atol=1e-5)
    assert layer.initialized
