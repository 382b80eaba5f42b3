"""FrEIA's coupling blocks on the way back: one evaluation of each subnet, and plain autograd's gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import Sequential, set_backprop
from src.invertible.interop import FreiaModule

Fm = pytest.importorskip("FrEIA.modules")

BLOCKS = ("NICECouplingBlock", "RNVPCouplingBlock", "GLOWCouplingBlock", "GINCouplingBlock")
SHAPE = (4, 5, 3, 3)


class Subnet(nn.Sequential):
    """Counts its evaluations."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Subnet.calls += 1
        return super().forward(x)


def subnet(*between: nn.Module) -> Callable[[int, int], nn.Module]:
    def construct(dims_in: int, dims_out: int) -> nn.Module:
        return Subnet(nn.Conv2d(dims_in, 6, 3, padding=1), *copy.deepcopy(between), nn.Conv2d(6, dims_out, 1))

    return construct


def block(kind: str, *between: nn.Module) -> Any:
    return getattr(Fm, kind)([SHAPE[1:]], subnet_constructor=subnet(*between or [nn.Tanh()]), split_len=2)


def gradients(net: Sequential, policy: str, *, inverse: bool = False) -> list[Tensor]:
    """Output, gradients of input and parameters, and moving buffers of a copy after a step."""
    net = copy.deepcopy(net)
    set_backprop(net, policy)
    torch.manual_seed(1)
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(2)  # for what the subnets draw
    y, logdet = (net.inverse_and_logdet if inverse else net.forward_and_logdet)(x * 1.0)
    (y.pow(3).sum() + logdet.pow(2).sum()).backward()
    assert x.grad is not None
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(grads) == len(list(net.parameters()))
    return [y.detach(), x.grad, *grads, *net.buffers()]


def assert_same_as_stored(net: Sequential, *, inverse: bool = False) -> int:
    """And return how often the reversible step evaluates a subnet."""
    expected = gradients(net, "stored", inverse=inverse)
    Subnet.calls = 0
    torch.testing.assert_close(gradients(net, "reversible", inverse=inverse), expected, rtol=1e-10, atol=1e-10)
    return Subnet.calls


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_backward_evaluates_each_subnet_once(kind: str, inverse: bool) -> None:
    torch.manual_seed(0)
    net = Sequential(FreiaModule(block(kind)), FreiaModule(block(kind))).double()
    num_subnets = sum(isinstance(module, Subnet) for module in net.modules())
    assert assert_same_as_stored(net, inverse=inverse) == 2 * num_subnets, "in the forward pass and in backward"


def test_batch_statistics_move_once() -> None:
    torch.manual_seed(0)
    net = Sequential(FreiaModule(block("GLOWCouplingBlock", nn.BatchNorm2d(6), nn.Tanh()))).double()
    assert assert_same_as_stored(net) == 4


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_dropout_masks_belong_to_their_subnets(kind: str, inverse: bool) -> None:
    torch.manual_seed(0)
    net = Sequential(FreiaModule(block(kind, nn.Dropout(0.5)))).double()
    num_subnets = sum(isinstance(module, Subnet) for module in net.modules())
    expected = 2.5 * num_subnets  # the first half once more, so that the last one draws what it drew
    assert assert_same_as_stored(net, inverse=inverse) == expected


def test_a_module_of_both_subnets_moves_its_buffers_in_their_order() -> None:
    torch.manual_seed(0)
    inner = block("GLOWCouplingBlock")
    shared = nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 6, 1))
    inner.subnet1.insert(1, shared)
    inner.subnet2.insert(1, shared)
    assert assert_same_as_stored(Sequential(FreiaModule(inner)).double()) == 5


def test_hooks_on_a_block_may_change_what_it_takes_and_returns() -> None:
    torch.manual_seed(0)
    inner = block("GLOWCouplingBlock")

    def halved(module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        ((x,),) = args
        return (((x / 2 if options["rev"] else x),),), options

    def doubled(module: nn.Module, args: Any, options: dict[str, Any], result: Any) -> Any:
        (x,), logdet = result
        return ((x if options["rev"] else 2 * x),), logdet

    inner.register_forward_pre_hook(halved, with_kwargs=True)
    inner.register_forward_hook(doubled, with_kwargs=True)
    assert assert_same_as_stored(Sequential(FreiaModule(inner)).double()) == 6


class Doubled(Fm.GLOWCouplingBlock):  # type: ignore[misc, name-defined]
    """A class of its own, whose map is another one."""

    def forward(self, x: Any, c: Any = (), rev: bool = False, jac: bool = True) -> Any:
        (y,), logdet = super().forward([x[0] / 2] if rev else x, c, rev=rev, jac=jac)
        return ((y,) if rev else (2 * y,)), logdet


def test_a_subclass_keeps_to_its_own_map() -> None:
    torch.manual_seed(0)
    inner = Doubled([SHAPE[1:]], subnet_constructor=subnet(nn.Tanh()))
    assert assert_same_as_stored(Sequential(FreiaModule(inner)).double()) == 6


def test_parameters_keep_their_names_in_a_reversible_step() -> None:
    net = Sequential(FreiaModule(block("NICECouplingBlock")))
    names = list(net.state_dict())
    set_backprop(net, "reversible")
    net(torch.randn(SHAPE).requires_grad_()).sum().backward()
    assert list(net.state_dict()) == names
    assert names[0] == "0.module.F.0.weight"
