"""Networks as programs for elsewhere: `torch.export` and ONNX, with the outputs of the network itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, set_backprop
from src.invertible.layers.orthogonal_matrices import cayley_transform
from src.invertible.onnx_operations import cayley_by_products, root_of_one_plus_square
from tests.marks import slow
from tests.models import small_networks

NETWORKS = small_networks.IMAGE_TO_IMAGE | small_networks.CLASSIFIERS
# The older exporter takes nothing but tensors in a state dict: no spectral norms, whose vectors are more than these.
ONNX = [slow(name, "torch.export") for name in NETWORKS] + [
    pytest.param(name, "torchscript", marks=() if name == "iunet-1d" else pytest.mark.slow)
    for name in NETWORKS
    if not name.startswith("iresnet")
]


def build(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in evaluation mode, images, and its output for three of them."""
    net, x = small_networks.build(name)
    net.eval()
    three = torch.cat((x, x[:1].flip(-1)))
    with torch.no_grad():
        return net, x, net(three)


def assert_is_exported(net: nn.Module, x: Tensor, expected: Tensor, *, strict: bool = False) -> None:
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    output = program.module()(torch.cat((x, x[:1].flip(-1))))
    torch.testing.assert_close(output.detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", small_networks.fast_and_slow(NETWORKS))
def test_torch_export(name: str) -> None:
    assert_is_exported(*build(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_strict_torch_export(name: str) -> None:
    assert_is_exported(*build(name), strict=True)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "stored"])
def test_a_program_is_the_same_under_every_policy(policy: str) -> None:
    net, x, expected = build("partially-reversible-unet-1d")
    set_backprop(net, policy)
    assert_is_exported(net, x, expected)


@pytest.mark.parametrize("name", ["irevnet", slow("iunet-1d")])
def test_torch_export_without_gradients(name: str) -> None:
    with torch.no_grad():
        assert_is_exported(*build(name))


def test_a_spectral_norm_that_no_pass_has_found_cannot_be_exported() -> None:
    net, x = small_networks.build("iresnet")
    with pytest.raises(RuntimeError, match=r"expected a forward pass on inputs of shape \(2, 8, 8\) before the export"):
        torch.export.export(net.eval(), (x,))


@pytest.mark.parametrize(("name", "exporter"), ONNX)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx(name: str, exporter: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net, x, expected = build(name)
    path = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), path, dynamo=exporter == "torch.export")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), expected[:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_cayley_transform_in_operations_of_onnx(scale: float) -> None:
    theta = scale * torch.randn(3, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(cayley_by_products(theta), cayley_transform(theta), rtol=0, atol=1e-9)
    assert cayley_by_products(theta.float()).dtype == torch.float32


def test_a_root_in_operations_of_onnx() -> None:
    x = torch.tensor([0.0, 1e-30, -0.3, 1.0, -7.0, 1e30, -3e38])
    torch.testing.assert_close(root_of_one_plus_square(x), torch.hypot(x, torch.ones(())))
