"""Behind a layer that autocast runs in half precision, a tree still computes its states in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers import awake
from src.invertible import (
    POLICIES,
    AdditiveCoupling,
    FixedLinear,
    InvertibleConv1x1,
    InvertibleModule,
    OrthogonalMixing,
    Sequential,
    set_backprop,
)
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from tests.invertible.table import NAMES, build

HALF = [torch.bfloat16, torch.float16]
METHODS = ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"]

pytestmark = pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning")


def lifted(policy: str) -> Lifted:
    torch.manual_seed(0)
    net = awake(Lifted(1, 1, IUNet((4, 8), 2, 2, mixing={"init": "random"})))
    set_backprop(net, policy)
    return net  # type: ignore[return-value]


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_network_behind_a_convolution_is_inverted_in_single_precision(policy: str, dtype: torch.dtype) -> None:
    net = lifted(policy)
    with torch.autocast("cpu", dtype):
        x = net.lift(images())
        y = net.body(x)
        assert (x.dtype, y.dtype) == (dtype, torch.float32)
        assert (net.body.inverse(y) - x).abs().max() < 1e-4 * y.abs().max()  # type: ignore[operator]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "stored"])
def test_output_and_gradients_behind_a_convolution_are_those_of_plain_autograd(policy: str, dtype: torch.dtype) -> None:
    outputs, gradients = [], []
    for each in ("stored", policy):
        net = lifted(each)
        with torch.autocast("cpu", dtype):
            y = net(images())
        (y.float() ** 2).mean().backward()
        outputs.append(y.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert torch.equal(*outputs)
    assert (gradients[1] - gradients[0]).norm() < 2e-2 * gradients[0].norm()  # bfloat16 has 8 bits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_takes_half_precision_under_autocast(name: str, method: str) -> None:
    layer, x = build(name)
    if method.startswith("inverse"):
        x = layer(x).detach()
    layer, x = layer.float(), x.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = (getattr(layer, method)(part) for part in (x, x.float()))
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def tensors(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_without_autocast_a_network_in_half_precision_stays_there() -> None:
    net = lifted("stored").to(torch.bfloat16)
    assert net.body(net.lift(images().bfloat16())).dtype == torch.bfloat16


@pytest.mark.parametrize("policy", POLICIES)
def test_a_wrapper_that_turns_autocast_off_does_not_change_the_numbers(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """memcnn does that on a GPU, in its forward only."""
    memcnn = pytest.importorskip("memcnn.models.revop")
    forward = memcnn.InvertibleCheckpointFunction.forward

    def without_autocast(*arguments: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(*arguments)

    monkeypatch.setattr(memcnn.InvertibleCheckpointFunction, "forward", staticmethod(without_autocast))
    outputs = []
    for each in ("stored", policy):
        with torch.autocast("cpu", torch.bfloat16):
            y = lifted(each)(images())
        y.float().sum().backward()
        outputs.append(y)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_layer_with_an_output_in_half_precision_is_differentiated(policy: str) -> None:
    layer = _HalfPrecision()
    set_backprop(layer, policy)
    x = images().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.scale.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 2.0))


class _HalfPrecision(InvertibleModule):
    """A layer of a user that does not keep the state in its precision."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self._cast(x * self.scale)

    def inverse(self, y: Tensor) -> Tensor:
        return self._cast(y / self.scale)

    @staticmethod
    def _cast(x: Tensor) -> Tensor:
        return x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x


MIXINGS: dict[str, Callable[[], InvertibleModule]] = {
    "conv1x1": lambda: InvertibleConv1x1(4),
    "fixed": lambda: FixedLinear(torch.linalg.qr(torch.randn(4, 4)).Q),
    "orthogonal": lambda: OrthogonalMixing(4, init="random"),
}


def subnet(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


@pytest.mark.parametrize("policy", ["reversible", "memcnn"])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_gradients_of_products_in_single_precision_are_in_single_precision(mixing: str, policy: str) -> None:
    torch.manual_seed(0)
    parts = [part for _ in range(4) for part in (AdditiveCoupling(4, subnet), MIXINGS[mixing]())]
    net, x, found = Sequential(*parts), torch.randn(8, 4), []
    for each in ("stored", policy):
        set_backprop(copied := copy.deepcopy(net), each)
        with torch.autocast("cpu", torch.bfloat16):
            y = copied(x)
        y.square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in copied.parameters() if p.grad is not None]))
    assert (found[1] - found[0]).norm() < 1e-5 * found[0].norm()
