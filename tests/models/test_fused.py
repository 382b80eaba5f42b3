"""A block that keeps one tensor for normalisation, activation and convolution, against the layers one by one."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.live_bytes import LiveBytes
from src.models import fused, normalisation, state_layout
from src.models.blocks import ConvBlock
from src.models.fused import run_fused

# Options of a block, then the shape of its input.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "layer norm": ({}, (1, 4, 6, 6, 4)),
    "a batch": ({}, (3, 4, 6, 4)),
    "instance norm": ({"norm": "instance", "final_activation": True}, (2, 4, 6, 6, 4)),
    "group norm": ({"norm": "group"}, (2, 16, 4, 6)),
    "batch norm": ({"norm": "batch"}, (2, 4, 6, 6)),
    "no norm": ({"norm": "none"}, (1, 4, 6, 6)),
    "three convolutions": ({"depth": 3}, (2, 4, 6, 6)),
    "one convolution": ({"depth": 1}, (1, 4, 6, 6, 4)),
    "rows": ({"final_activation": True}, (2, 4, 12)),
    "other channels": ({"out_channels": 6}, (1, 4, 6, 6, 4)),
    "one channel": ({"out_channels": 1}, (1, 1, 6, 6, 4)),
    "odd sizes": ({}, (1, 3, 5, 7, 3)),
}


def built(name: str, dtype: torch.dtype = torch.float64) -> tuple[ConvBlock, Tensor]:
    options, shape = CASES[name]
    torch.manual_seed(0)
    block = ConvBlock(
        shape[1],
        options.get("out_channels", shape[1]),
        spatial_dims=len(shape) - 2,
        **{key: value for key, value in options.items() if key != "out_channels"},
    )
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.to(dtype), torch.randn(shape, dtype=dtype)


def one_by_one(block: ConvBlock, x: Tensor) -> Tensor:
    return nn.Sequential.forward(block, x)


def step(block: nn.Module, forward: Any, x: Tensor, retained: bool = False) -> list[Tensor | None]:
    """The output, and the gradients for a gradient that is a part of a larger tensor."""
    inputs = [x.clone().requires_grad_(), *(p for p in block.parameters() if p.requires_grad)]
    y = forward(inputs[0] * 1.0)
    shape = (len(y), 2 * y.shape[1], *y.shape[2:])
    grad = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)[:, : y.shape[1]]
    if retained:
        torch.autograd.grad(y, inputs, grad, retain_graph=True, allow_unused=True)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad, allow_unused=True)]


@pytest.fixture(params=["torch's kernels", "sums over the tensor"])
def _every_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """States of any size are fused, by the operations of a CPU or by those of a GPU, in several chunks."""
    monkeypatch.setattr(normalisation, "_SMALL", 0)
    monkeypatch.setattr(state_layout, "_CHUNK", 16)
    if request.param != "torch's kernels":
        monkeypatch.setattr(normalisation, "_has_good_kernels", lambda *_: False)


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, channels_last: bool) -> None:
    block, x = built(name)
    if channels_last:
        if x.ndim == 3:
            pytest.skip("torch has no such layout for rows")
        layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        block, x = block.to(memory_format=layout), x.to(memory_format=layout)  # type: ignore[call-overload]
    plain = copy.deepcopy(block)
    expected = step(plain, lambda x: one_by_one(plain, x), x)
    for retained in (False, True):
        found = step(copied := copy.deepcopy(block), copied, x, retained)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found[1:], expected[1:], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name: str) -> None:
    block, x = built(name)
    results = []
    for forward in (block, lambda x: one_by_one(block, x)):
        inputs = [x.clone().requires_grad_(), *block.parameters()]
        grads = torch.autograd.grad((forward(inputs[0]) ** 3).sum(), inputs, create_graph=True)
        total = sum((grad**2).sum() for grad in grads)
        results.append(torch.autograd.grad(total, inputs, allow_unused=True))  # type: ignore[arg-type]
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("frozen", ["conv0", "norm0", "conv1", "norm1", "input"])
def test_frozen_layers(frozen: str) -> None:
    block, x = built("layer norm")
    if frozen != "input":
        block.get_submodule(frozen).requires_grad_(False)
    expected = step(block, lambda x: one_by_one(block, x), x)
    torch.testing.assert_close(step(block, block, x), expected, rtol=1e-10, atol=1e-10)
    if frozen == "input":
        block(x).sum().backward()
        found = [p.grad.clone() for p in block.parameters()]  # type: ignore[union-attr]
        one_by_one(block, x).sum().backward()
        assert all(torch.allclose(p.grad, 2 * g) for p, g in zip(block.parameters(), found, strict=True))  # type: ignore


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("layer", ["conv0", "norm0", "act0", "conv1", "norm1"])
def test_hooks_see_what_goes_through_their_layer(layer: str) -> None:
    block, x = built("layer norm")
    seen: list[Tensor] = []
    results = []
    for forward in (block, lambda x: one_by_one(block, x)):
        hooks = [
            block.get_submodule(layer).register_forward_hook(
                lambda _m, args, y: seen.extend((args[0].clone(), y.clone()))
            ),
            block.get_submodule(layer).register_full_backward_hook(lambda _m, a, b: seen.extend((a[0], b[0]))),
        ]
        results.append(step(block, forward, x))
        for hook in hooks:
            hook.remove()
    assert len(seen) == 8
    torch.testing.assert_close(seen[:4], seen[4:], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_every_size")
def test_exchanged_layers_are_called() -> None:
    class Doubled(nn.GroupNorm):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    block, x = built("layer norm")
    block.norm0 = Doubled(1, 4).double()
    torch.testing.assert_close(block(x), one_by_one(block, x), rtol=1e-10, atol=1e-10)
    block.act0.forward = torch.sigmoid  # type: ignore[method-assign, union-attr]
    torch.testing.assert_close(block(x), one_by_one(block, x), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("name", ["layer norm", "instance norm", "a batch"])
def test_bfloat16_under_autocast(name: str) -> None:
    block, x = built(name, torch.float32)
    exact = step(double := copy.deepcopy(block).double(), lambda x: one_by_one(double, x), x.double())

    def under_autocast(forward: Any) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return step(block, forward, x)

    found, plain = under_autocast(block), under_autocast(lambda x: one_by_one(block, x))
    assert found[0].dtype == torch.bfloat16
    for a, b, c in zip(found, plain, exact, strict=True):
        assert (a.double() - c).norm() <= 1.5 * (b.double() - c).norm() + 0.01 * c.norm()


def test_a_block_keeps_its_input_and_two_tensors() -> None:
    block = ConvBlock(8, 8, spatial_dims=3)
    x = torch.randn(1, 8, 24, 24, 24).to(memory_format=torch.channels_last_3d).requires_grad_() * 1.0  # type: ignore
    assert x.numel() > normalisation._SMALL
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = block(x)
    state = 4 * x.numel()
    assert sum(saved.values()) == pytest.approx(3 * state, rel=0.01)
    assert y.shape == x.shape


def test_small_states_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = built("layer norm")
    monkeypatch.setattr(fused.Normalised, "apply", None)
    run_fused(list(block), x)


class Held:
    """Tensors that somebody keeps of a block's graph, and their numbers."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def keep(self, tensor: Tensor) -> Tensor:
        self.pairs.append((tensor, tensor.detach().clone()))
        return tensor

    def after(self, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.keep(output)


@pytest.mark.usefixtures("_every_size")
@pytest.mark.parametrize("holder", ["hook of a layer", "hook of all layers", "hook of saved tensors", "retained graph"])
def test_what_the_last_normalisation_has_saved_is_overwritten_only_where_nobody_sees_it(holder: str) -> None:
    block, x = built("one convolution" if holder == "hook of all layers" else "instance norm")
    held = Held()
    if holder == "hook of a layer":
        block.conv1.register_forward_hook(held.after)  # type: ignore[union-attr]
    handle = nn.modules.module.register_module_forward_hook(held.after) if holder == "hook of all layers" else None
    hooks = torch.autograd.graph.saved_tensors_hooks(held.keep, lambda tensor: tensor)
    try:
        with hooks if holder == "hook of saved tensors" else contextlib.nullcontext():
            y = block(x.requires_grad_())
    finally:
        if handle:
            handle.remove()
    inputs = [x, *block.parameters()]
    first = torch.autograd.grad(y.sum(), inputs, retain_graph=holder == "retained graph")
    if holder == "retained graph":
        torch.testing.assert_close(torch.autograd.grad(y.sum(), inputs), first, rtol=1e-12, atol=1e-12)
    else:
        assert held.pairs
    assert all(torch.equal(tensor, numbers) for tensor, numbers in held.pairs)


def test_backward_needs_no_state_for_the_last_normalisation() -> None:
    block = ConvBlock(8, 8, spatial_dims=3, norm="instance", final_activation=True)
    x = torch.randn(1, 8, 32, 32, 32).to(memory_format=torch.channels_last_3d).requires_grad_()  # type: ignore[call-overload]
    grad = torch.randn(1, 16, 32, 32, 32).to(memory_format=torch.channels_last_3d)[:, :8]  # type: ignore[call-overload]
    with LiveBytes() as live:
        y = block(x)
        edge = torch.autograd.graph.get_gradient_edge(y)
        del y
        torch.autograd.grad([edge], [x, *block.parameters()], [grad])
    # Two that the graph keeps, and one that is rebuilt for the weight of the last convolution, in overlapping halves.
    assert live.peak <= 1.02 * (3 + 2 * 2 / 32) * 4 * x.numel()
