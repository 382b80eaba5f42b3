"""Oracles for every layer of the table: inverse, log-determinant, gradients under every policy."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from src.invertible import POLICIES, Inverse, InvertibleModule, set_backprop
from tests.invertible.table import NAMES, build

SAVING = [policy for policy in POLICIES if policy != "stored"]

pytestmark = pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning")


@pytest.mark.parametrize("name", NAMES)
def test_inverse_undoes_forward_and_forward_undoes_inverse(name: str) -> None:
    layer, x = build(name)
    y = layer(x)
    assert (layer.inverse(y) - x).abs().max() < 1e-10
    assert (layer.inverted()(y) - x).abs().max() < 1e-10
    y = torch.randn_like(y)
    assert (layer(layer.inverse(y)) - y).abs().max() < 1e-10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inverted", [False, True])
def test_logdet_is_that_of_the_jacobian(name: str, inverted: bool) -> None:
    layer, x = build(name)
    if inverted:
        x, layer = layer(x).detach(), Inverse(layer)
    y, logdet = layer.forward_and_logdet(x)
    torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-12)
    assert logdet.shape == (x.shape[0],)
    for b in range(x.shape[0]):
        torch.testing.assert_close(logdet[b], jacobian_logdet(layer, x, b), rtol=0, atol=1e-8)


def jacobian_logdet(layer: InvertibleModule, x: Tensor, b: int) -> Tensor:
    """``log|det|`` of the Jacobian of sample ``b``, the others held fixed."""

    def sample(part: Tensor) -> Tensor:
        return layer(torch.cat((x[:b], part, x[b + 1 :])))[b].flatten()

    jacobian = torch.autograd.functional.jacobian(sample, x[b : b + 1])
    return torch.linalg.slogdet(jacobian.flatten(1)).logabsdet


def gradients(layer: InvertibleModule, method: str, policy: str, x: Tensor) -> dict[str, Tensor]:
    """Output and gradients of a loss that depends on every output, log-determinants included."""
    layer = copy.deepcopy(layer)
    set_backprop(layer, policy)
    x = x.clone().requires_grad_()
    result = getattr(layer, method)(x)
    outputs = result if isinstance(result, tuple) else (result,)
    loss = sum(((o + 0.3) ** 3).sum() for o in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()
    assert x.grad is not None
    found = {"x": x.grad, "y": outputs[0].detach()}
    for name, parameter in layer.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient for {name}"
            found[name] = parameter.grad
    return found


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_under_every_policy_are_those_of_plain_autograd(name: str, method: str) -> None:
    layer, x = build(name)
    if method.startswith("inverse"):
        x = layer(x).detach()
    expected = gradients(layer, method, "stored", x)
    for policy in SAVING:
        found = gradients(layer, method, policy, x)
        assert found.keys() == expected.keys(), policy
        for key, value in expected.items():
            scale = value.abs().max().clamp(min=1.0)
            assert (found[key] - value).abs().max() < 1e-9 * scale, (policy, key)
