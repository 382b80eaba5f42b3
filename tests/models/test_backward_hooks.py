"""Full backward hooks on the layers of every network: they see what they see in a net without in-place operations."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, InvertibleModule, set_backprop
from src.invertible.layers.orthogonal_matrices import OrthogonalMatrices
from tests.models import small_networks

Seen = dict[str, list[tuple[Tensor | None, ...]]]


def step(net: nn.Module, x: Tensor) -> tuple[dict[str, Tensor | None], Seen]:
    """Gradients of the parameters, and what hooks on each layer see: gradients of its inputs and outputs."""
    net, seen = copy.deepcopy(net), {}

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, grad_input: tuple, grad_output: tuple) -> None:
            seen.setdefault(name, []).append(tuple(g if g is None else g.clone() for g in (*grad_input, *grad_output)))

        module.register_full_backward_hook(hook)

    for name, module in net.named_modules():
        # Orthogonal matrices have no input, and are computed for the whole tree at once.
        if not list(module.children()) and not isinstance(module, InvertibleModule | OrthogonalMatrices):
            watch(name, module)
    torch.manual_seed(0)
    net(x.clone().requires_grad_() * 1.0).square().sum().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}, seen


@pytest.mark.parametrize("name", small_networks.fast_and_slow(small_networks.NETWORKS))
def test_hooks_see_the_gradients_of_plain_autograd(name: str) -> None:
    net, x = small_networks.build(name)
    net, x = net.double(), x.double()
    plain = copy.deepcopy(net)
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    gradients, expected = step(plain, x)
    for policy in POLICIES:
        set_backprop(net, policy)
        found, seen = step(net, x)
        close = {"rtol": 1e-8, "atol": 1e-8, "msg": policy}
        torch.testing.assert_close(found, gradients, **close)
        torch.testing.assert_close(seen, expected, **close)
