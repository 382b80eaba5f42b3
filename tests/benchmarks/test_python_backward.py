"""Backpropagation in Python gives torch's gradients and holds the same bytes."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from benchmarks.peers import awake
from benchmarks.python_backward import PythonBackward
from src.invertible import POLICIES, set_backprop
from src.models.iunet import IUNet
from src.models.lifted import Lifted

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.custom_:FutureWarning")


def step(policy: str, in_python: bool) -> tuple[int, int, list[Tensor | None]]:
    """Bytes kept for backward, peak of live bytes, gradients."""
    torch.manual_seed(0)
    net = awake(Lifted(1, 1, IUNet((8, 16), 2, 3)))
    set_backprop(net, policy)
    x = torch.randn(1, 1, 8, 8, 8)
    with PythonBackward().installed() if in_python else contextlib.nullcontext(), LiveBytes() as live:
        loss = net(x).square().mean()
        kept = live.now
        loss.backward()
    return kept, live.peak, [p.grad for p in net.parameters()]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_is_that_of_torchs_engine(policy: str) -> None:
    kept, peak, gradients = step(policy, in_python=True)
    expected_kept, expected_peak, expected = step(policy, in_python=False)
    assert kept == expected_kept
    assert peak == pytest.approx(expected_peak, rel=0.05)  # memcnn's inputs stay a little longer
    for found, wanted in zip(gradients, expected, strict=True):
        assert found is not None
        assert wanted is not None
        assert torch.equal(found, wanted)


def test_gradients_for_some_inputs_and_a_graph_used_twice() -> None:
    x, unused = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(1, requires_grad=True)
    with PythonBackward().installed():
        y = (x.exp() * x + torch.zeros(3, 2)).sum() / 3 + x.double().sum()
        first, none = torch.autograd.grad(y, [x, unused], retain_graph=True, allow_unused=True)
        with pytest.raises(RuntimeError, match="every input"):
            torch.autograd.grad(y, [unused], retain_graph=True)
        (second,) = torch.autograd.grad(y, [x])
        with pytest.raises(RuntimeError, match="used once"):
            torch.autograd.grad(y, [x])
    assert none is None
    assert first is not None
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    torch.testing.assert_close(first, ((1 + x) * x.exp() + 1).detach())
