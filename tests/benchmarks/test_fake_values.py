"""A step on fake CUDA tensors: the devices agree, and autocast follows CUDA's rules in both passes."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch

from benchmarks.fake_values import DEVICE, FakeTensorMode, fake_values, make_fake
from src.invertible import POLICIES, AdditiveCoupling, set_backprop
from src.models.blocks import CONVOLUTIONS
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from src.models.norms import GroupNorm

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.custom_:FutureWarning")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_under_cudas_autocast(policy: str) -> None:
    net = Lifted(1, 1, IUNet((4, 8), 2, 3))
    set_backprop(net, policy)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(net, mode)
    seen: dict[type, set[torch.dtype]] = defaultdict(set)
    for module in net.modules():
        module.register_forward_hook(lambda m, _inputs, output: seen[type(m)].add(output.dtype))
    with fake_values(mode):
        x = torch.zeros(1, 1, 8, 8, 8, device=DEVICE)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            y = net(x)
        assert y.dtype == torch.bfloat16
        y.float().square().mean().backward()
    assert seen[CONVOLUTIONS[3]] == {torch.bfloat16}  # type: ignore[index]
    assert seen[GroupNorm] == {torch.float32}
    assert seen[AdditiveCoupling] == seen[IUNet] == {torch.float32}
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert (parameter.grad.device, parameter.grad.dtype) == (DEVICE, torch.float32)


def test_autocast_is_as_before_afterwards() -> None:
    with fake_values(FakeTensorMode()), torch.autocast(DEVICE.type, torch.bfloat16):
        assert torch.is_autocast_enabled(DEVICE.type)
    assert not torch.is_autocast_enabled(DEVICE.type)
