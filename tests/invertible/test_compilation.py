"""Compiled subnets: the losses and gradients of plain ones under every policy, and unchanged names."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import train
from benchmarks.peers import awake
from src.config.composition import compose_config
from src.invertible import POLICIES, set_backprop
from src.invertible.compilation import compile_subnets
from src.models.blocks import ConvBlock
from src.models.glow import Glow
from src.models.iunet import IUNet
from src.models.lifted import Lifted
from src.models.unet import UNet
from src.runs import load_run
from src.runs.folder import RunFolder
from tests.fakes import tiny_overrides
from tests.marks import gpu, slow

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


@pytest.fixture(autouse=True)
def own_limits() -> Iterator[None]:
    config = torch._dynamo.config
    with config.patch(recompile_limit=8, accumulated_recompile_limit=config.accumulated_recompile_limit):
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()


def network(norm: str = "layer") -> nn.Module:
    torch.manual_seed(0)
    block = functools.partial(ConvBlock, spatial_dims=2, norm=norm)
    return awake(Lifted(1, 1, IUNet((4, 8, 16), 1, 2, subnet=block)))


def step(net: nn.Module, policy: str, bf16: bool = False) -> tuple[float, Tensor]:
    """Loss and gradients."""
    set_backprop(net, policy)
    net.zero_grad()
    device = next(net.parameters()).device
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = net(x).float().square().mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@pytest.mark.parametrize("norm", [slow("layer"), slow("batch")])
@pytest.mark.parametrize("policy", POLICIES)
def test_compiled_subnets_give_losses_and_gradients_of_plain_ones(policy: str, norm: str) -> None:
    plain = network(norm)
    compiled = copy.deepcopy(plain)
    compile_subnets(compiled, backend="aot_eager")
    for _ in range(2):
        (expected, expected_grad), (found, found_grad) = step(plain, policy), step(compiled, policy)
        assert found == pytest.approx(expected, rel=1e-5)
        assert (found_grad - expected_grad).norm() < 1e-5 * expected_grad.norm()
    for a, b in zip(plain.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@needs_compiler
@pytest.mark.parametrize(
    ("mode", "device"), [slow("default", "cpu"), gpu("default", "cuda"), gpu("reduce-overhead", "cuda")]
)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bf16", [False, True])
def test_fused_kernels_give_losses_and_gradients_of_plain_ones(mode: str, device: str, policy: str, bf16: bool) -> None:
    plain = network().to(device)
    compiled = copy.deepcopy(plain)
    compile_subnets(compiled, mode)
    tolerance = 0.06 if bf16 else 1e-3  # fused kernels round less often than single ones do
    for _ in range(3):
        (expected, expected_grad), (found, found_grad) = step(plain, policy, bf16), step(compiled, policy, bf16)
        assert found == pytest.approx(expected, rel=tolerance)
        assert (found_grad - expected_grad).norm() < tolerance * expected_grad.norm()


def test_names_and_copies_know_nothing_of_it() -> None:
    plain, compiled = network(), network()
    assert compile_subnets(compiled, backend="aot_eager") == 6
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert all(part._compiled_call_impl is None for part in copy.deepcopy(compiled).modules())
    assert compile_subnets(Glow(1, 1, 2, 4), backend="aot_eager") == 2


@pytest.mark.slow
def test_too_many_sizes_are_an_error_and_not_a_silent_return_to_plain_subnets() -> None:
    net = network()
    compile_subnets(net, backend="eager")
    torch._dynamo.config.recompile_limit = 3
    with pytest.raises(ValueError, match=r"expected inputs of few sizes for compiled subnets, got .* after 3 variants"):
        # Whether torch counts the variants of one subnet or of all depends on its version.
        for size in range(8, 80, 8):
            net(torch.zeros(1, 1, size, size))


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected mode to be one of default, reduce-overhead, .*'fast'"):
        compile_subnets(network(), "fast")
    with pytest.raises(ValueError, match=r"expected a network with couplings, .* got UNet"):
        compile_subnets(UNet(1, 1, 4, 2, 2))


@needs_compiler
@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_a_plain_one_and_loads_without_compilation(tmp_path: Path) -> None:
    losses = {}
    for choice in ("false", "true"):
        config = compose_config(tiny_overrides(tmp_path / choice, f"compile={choice}"))
        losses[choice] = train.train(config)["metrics"]["train/loss"]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-4)
    weights = [
        torch.load(RunFolder(tmp_path / choice).checkpoint("last"), weights_only=True)["state_dict"]
        for choice in ("false", "true")
    ]
    assert list(weights[0]) == list(weights[1])
    net = load_run(tmp_path / "true").net
    assert all(part._compiled_call_impl is None for part in net.modules())
