"""Every layer of the table in single precision and under autocast, against double precision on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from src.invertible import POLICIES, InvertibleModule, set_backprop
from tests.invertible.table import LAYERS, build
from tests.marks import on_devices


class Precision(NamedTuple):
    """How a layer is evaluated, and the largest errors relative to the norms of gradients and input."""

    bf16: bool
    of_gradients: float
    of_inverse: float


# On a CPU the worst layers have 6e-4 and 2e-5, and 0.08 and 0.02.
PRECISIONS = {"float32": Precision(False, 3e-3, 1e-4), "bfloat16": Precision(True, 0.15, 0.05)}
# A norm, a log-determinant, a network, Fourier transforms, iterations.
FAST = ("additive-2d-layer", "all-in-one-2d-hard", "iunet-2d", "fourier-2d-fft", "residual-2d")

pytestmark = [
    pytest.mark.filterwarnings("ignore:channels=.*cannot be achieved:UserWarning"),
    pytest.mark.parametrize(("name", "device"), on_devices(LAYERS, FAST)),
    pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS),
]


@pytest.fixture(autouse=True)
def without_tf32() -> Iterator[None]:
    """By default cuDNN's convolutions round float32 to the 11 bits of TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def gradients(layer: InvertibleModule, x: Tensor, policy: str, bf16: bool = False) -> Tensor:
    """The gradients of a loss of output and log-determinant by input and parameters, as one vector on the CPU."""
    layer = copy.deepcopy(layer)
    set_backprop(layer, policy)
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        y, logdet = layer.forward_and_logdet(x)
    (((y.double() + 0.3) ** 3).sum() + ((logdet.double() + 0.3) ** 3).sum()).backward()
    found = [part.grad for part in (x, *layer.parameters()) if part.grad is not None]
    return torch.cat([grad.double().flatten().cpu() for grad in found])


def in_single_precision(name: str) -> tuple[InvertibleModule, Tensor]:
    """Weights and an input that float32 represents."""
    layer, x = build(name)
    return layer.float(), x.float()


def test_gradients_under_every_policy_are_those_of_double_precision(
    name: str, device: str, precision: Precision
) -> None:
    layer, x = in_single_precision(name)
    expected = gradients(copy.deepcopy(layer).double(), x.double(), "stored")
    layer, x = layer.to(device), x.to(device)
    for policy in POLICIES:
        found = gradients(layer, x, policy, precision.bf16)
        assert (found - expected).norm() < precision.of_gradients * expected.norm(), policy


def test_the_inverse_undoes_forward(name: str, device: str, precision: Precision) -> None:
    layer, x = in_single_precision(name)
    layer, x = layer.to(device), x.to(device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision.bf16):
        found = layer.inverse(layer(x))
    assert found.dtype == torch.float32
    assert (found - x).norm() < precision.of_inverse * x.norm()
