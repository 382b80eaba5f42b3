"""Gradients of every policy against plain autograd in double precision on the CPU."""

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.recording import Recorder
from benchmarks.peers import awake
from src.invertible import POLICIES, AdditiveCoupling, set_backprop
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet
from src.models.lifted import Lifted


def network(norm: str) -> nn.Module:
    """An iUNet of three levels whose couplings do something."""
    block: Any = functools.partial(ConvBlock, spatial_dims=3, norm=norm)
    return awake(Lifted(1, 1, IUNet((16, 32, 64), 2, 3, subnet=block)))


def gradient(net: nn.Module, x: Tensor, policy: str, bf16: bool) -> Tensor:
    """Return the gradients of all parameters in one vector, in double precision on the CPU."""
    set_backprop(net, policy)  # type: ignore[arg-type]
    net.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        y = net(x)
    (y if x.dtype == torch.float64 else y.float()).square().mean().backward()
    return torch.cat([p.grad.double().flatten().cpu() for p in net.parameters() if p.grad is not None])


def run(recorder: Recorder) -> None:
    """Record the relative error of each norm, precision and policy, and the types of the states."""
    for norm in ("layer", "instance", "none"):
        torch.manual_seed(0)
        net, x = network(norm), torch.randn(1, 1, 16, 16, 16)
        oracle = gradient(copy.deepcopy(net).double(), x.double(), "stored", bf16=False)
        net, x = net.to(recorder.device), x.to(recorder.device)
        states: set[str] = set()
        for module in net.modules():
            if isinstance(module, AdditiveCoupling):
                module.register_forward_pre_hook(lambda _, args, s=states: s.add(str(args[0].dtype)))  # type: ignore[misc]
        for bf16 in (False, True):
            for policy in POLICIES:
                if recorder.late:
                    return
                states.clear()
                with recorder.measurement("gradient", norm=norm, policy=policy, bf16=bf16) as numbers:
                    found = gradient(net, x, policy, bf16)
                    numbers["relative_error"] = float((found - oracle).norm() / oracle.norm())
                    numbers["states"] = sorted(state.removeprefix("torch.") for state in states)
