"""Behind a layer that autocast runs in half precision, a tree still computes its states in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.peers import awake
from src.invertible import POLICIES, set_backprop
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from tests.invertible.table import LAYERS, build

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
def test_output_and_gradients_behind_a_convolution_are_those_of_plain_autograd(
    policy: str, dtype: torch.dtype
) -> None:
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
@pytest.mark.parametrize("name", LAYERS)
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
