"""FrEIA's modules under autocast: subnets in half precision, states in float32, and so gradients that are right."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, InvertibleModule, Sequential, set_backprop
from src.invertible.interop import FreiaModule
from src.invertible.module import in_single_precision, map_tensors, tensors_of
from tests.invertible.table.samples import dense
from tests.invertible.test_freia_modules import MODULES, build, call

Fm = pytest.importorskip("FrEIA.modules")
HALF = torch.bfloat16
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def half(value: Tensor) -> Tensor:
    """A tensor as a layer before, under autocast, gives it."""
    return value.to(HALF) if value.is_floating_point() else value


@pytest.mark.parametrize("name", MODULES)
def test_states_are_in_single_precision_and_come_back(name: str) -> None:
    net, alone, x, condition = build(name)
    net = FreiaModule(alone.float())
    x, condition = map_tensors(half, x), map_tensors(half, condition)
    with torch.no_grad(), torch.autocast("cpu", HALF):
        y, logdet = call(net, "forward_and_logdet", x, condition)
        back = call(net, "inverse", y, condition)
        x, condition = map_tensors(in_single_precision, x), map_tensors(in_single_precision, condition)
    has_subnets = any(isinstance(part, nn.Linear | nn.Conv2d) for part in alone.modules())
    # A subnet in half precision jumps where a state rebuilt from the other half differs by a rounding error.
    for found, expected in zip(tensors_of(back), tensors_of(x), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05 if has_subnets else 1e-4)
    with torch.no_grad():
        expected_y, expected_logdet = call(net, "forward_and_logdet", x, condition)
    for found, expected in zip((*tensors_of(y), logdet), (*tensors_of(expected_y), expected_logdet), strict=True):
        assert found.dtype == torch.float32
        assert has_subnets or torch.equal(found, expected)


LINEAR: dict[str, Any] = {
    "householder": lambda: Fm.HouseholderPerm([(4,)], n_reflections=3),
    "fixed": lambda: Fm.FixedLinearTransform([(4,)], M=torch.linalg.qr(torch.randn(4, 4)).Q),
}


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "stored"])
@pytest.mark.parametrize("mixing", LINEAR)
def test_gradients_of_a_deep_net_are_those_of_plain_autograd(mixing: str, policy: str) -> None:
    torch.manual_seed(0)
    couplings = (Fm.GLOWCouplingBlock([(4,)], subnet_constructor=dense) for _ in range(8))
    net = Sequential(*(FreiaModule(part) for block in couplings for part in (block, LINEAR[mixing]())))
    x, found = torch.randn(8, 4), []
    for each in ("stored", policy):
        set_backprop(copied := copy.deepcopy(net), each)
        with torch.autocast("cpu", HALF):
            y, logdet = copied.forward_and_logdet(x)
        (y.square().mean() - logdet.mean()).backward()
        found.append(torch.cat([p.grad.flatten() for p in copied.parameters() if p.grad is not None]))
    assert (found[1] - found[0]).norm() < 2e-2 * found[0].norm()  # bfloat16 has 8 bits


class Subnet(nn.Linear):
    """Notes the precisions of its outputs, and fails where it is told to."""

    dtypes: list[torch.dtype]

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        Subnet.dtypes.append(y.dtype)
        if x.isnan().any():
            raise ValueError("expected numbers")
        return y


def steered(net: InvertibleModule, x: Tensor) -> Tensor:
    with torch.autocast("cpu", HALF):
        return net(x)


def test_subnets_run_in_half_precision_and_leave_no_trace() -> None:
    net = FreiaModule(Fm.AllInOneBlock([(4,)], subnet_constructor=Subnet, permute_soft=True))
    Subnet.dtypes = []
    assert steered(net, torch.randn(3, 4)).dtype == torch.float32
    with pytest.raises(ValueError, match="expected numbers"):
        steered(net, torch.full((3, 4), torch.nan))
    assert Subnet.dtypes == [HALF, HALF]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert not torch.is_autocast_enabled("cpu")
    net(torch.randn(3, 4))
    assert Subnet.dtypes[2:] == [torch.float32]
