"""Norms whose sums run over a whole GPU have the values, gradients and parameters of torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.fake_values import DEVICE, FakeTensorMode, fake_values, make_fake
from benchmarks.live_bytes import LiveBytes
from src.models import normalisation, state_layout
from src.models.blocks import NORMS, ConvBlock, make_norm
from src.models.normalisation import Normalisation, Normalised, Options
from src.models.norms import GroupNorm, InstanceNorm2d, InstanceNorm3d, volume_norm

SHAPES = [((1, 8, 8, 6, 10), 1), ((2, 8, 4, 5), 1), ((2, 12, 7, 5), 4), ((3, 6, 11), 6), ((2, 4, 3), 2)]


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalisation, "_has_good_kernels", lambda *_: False)


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    x = (3 * torch.randn(shape, dtype=torch.float64) + 2).to(dtype)
    weight, bias = torch.randn(2, shape[1], dtype=torch.float64)
    return [
        part.requires_grad_()
        for part in (x, *((weight, bias) if dtype == torch.float64 else (weight.float(), bias.float())))
    ]


def found_and_expected(shape: tuple[int, ...], groups: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Output and gradients, and torch's in double precision."""
    parts = inputs(shape, dtype)
    y = volume_norm(*parts, groups, 1e-5)
    grad = torch.randn(shape, dtype=torch.float64).to(dtype)
    precise = [part.detach().double().requires_grad_() for part in parts]
    oracle = F.group_norm(precise[0], groups, *precise[1:], 1e-5)
    gradients = torch.autograd.grad(y, parts, grad), torch.autograd.grad(oracle, precise, grad.double())
    assert [part.dtype for part in (y, *gradients[0])] == [dtype, *(part.dtype for part in parts)]
    return [(y, oracle), *zip(*gradients, strict=True)]


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("chunk", [2**16, 40])
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_values_and_gradients_are_torchs(
    shape: tuple[int, ...], groups: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_layout, "_CHUNK", chunk)
    for found, expected in found_and_expected(shape, groups, torch.float64):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
@pytest.mark.parametrize(("shape", "groups"), SHAPES)
def test_statistics_have_single_precision(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, tolerance: float
) -> None:
    (y, y_oracle), (x, x_oracle), *parameters = found_and_expected(shape, groups, dtype)
    for found, expected in ((y, y_oracle), (x, x_oracle)):
        assert (found - expected).norm() < tolerance * expected.norm()
    for found, expected in parameters:  # float32
        assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("layout", [torch.channels_last_3d, None])
def test_any_memory_layout(layout: torch.memory_format | None) -> None:
    x, weight, bias = inputs((1, 8, 4, 6, 5))
    laid_out = (
        x.detach().repeat(1, 2, 1, 1, 1)[:, 4:12] if layout is None else x.detach().contiguous(memory_format=layout)
    )
    laid_out = laid_out.requires_grad_()
    grad = torch.randn_like(laid_out)
    y = volume_norm(laid_out, weight, bias, 2, 1e-5)
    oracle = F.group_norm(laid_out.contiguous(), 2, weight, bias, 1e-5)
    torch.testing.assert_close(y, oracle)
    torch.testing.assert_close(*(torch.autograd.grad(part, laid_out, grad)[0] for part in (y, oracle)))


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_it_can_be_differentiated_twice() -> None:
    x, weight, bias = inputs((2, 4, 3, 2))
    assert torch.autograd.gradgradcheck(lambda *parts: volume_norm(*parts, 2, 1e-5), (x, weight, bias))


@pytest.mark.parametrize("norm", [name for name in NORMS if name not in ("none", "batch")])
@pytest.mark.parametrize("channels", [4, 6])
def test_parameters_and_values_on_a_cpu_are_those_of_torchs_module(norm: str, channels: int) -> None:
    ours, groups = (
        make_norm(norm, channels, 2),
        {"layer": 1, "group": 4 if channels == 4 else 2, "instance": channels}[norm],
    )
    assert ours is not None
    theirs = nn.GroupNorm(groups, channels)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, channels, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_of_one_sample_takes_a_gradient_in_any_memory_layout(dims: int, dtype: torch.dtype) -> None:
    norm = {2: InstanceNorm2d, 3: InstanceNorm3d}[dims](8, affine=True)
    x = torch.randn(1, 8, *[4] * dims).to(dtype).requires_grad_()
    grad = torch.randn(1, 8, *[4] * dims).to(dtype)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    parts = (x, *norm.parameters())
    expected = torch.autograd.grad(norm(x), parts, grad)
    found = torch.autograd.grad(norm(x), parts, grad.contiguous(memory_format=layout))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def fake_norm(norm: nn.Module, shape: tuple[int, ...], bf16: bool) -> tuple[torch.dtype, list[torch.dtype], int]:
    """Type of the output and of the gradients of the parameters on a fake GPU, and the peak of live bytes."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(norm, mode)
    with fake_values(mode):
        x = torch.zeros(shape, device=DEVICE, dtype=torch.bfloat16 if bf16 else torch.float32, requires_grad=True)
        with LiveBytes() as live, torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            y = norm(x)
            y.sum().backward()
    return y.dtype, [p.grad.dtype for p in norm.parameters() if p.grad is not None], live.peak


@pytest.mark.parametrize("make", [lambda: GroupNorm(1, 8), lambda: InstanceNorm3d(8, affine=True)])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_volume_on_a_gpu_keeps_its_precision(make: type, bf16: bool) -> None:
    shape = (1, 8, 256, 256, 256)
    dtype, gradients, peak = fake_norm(make(), shape, bf16)
    assert dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert gradients == [torch.float32] * 2
    size = 2 if bf16 else 4
    # The output and two gradients, one of them an expanded number; and temporaries of an eighth in float32.
    assert peak < 3.6 * 8 * 256**3 * size


def test_torch_normalises_small_and_many_groups_on_a_gpu() -> None:
    for groups, shape in ((1, (1, 8, 8, 8, 8)), (8, (64, 8, 512, 512))):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        norm = GroupNorm(groups, 8)
        make_fake(norm, mode)
        with fake_values(mode):
            assert type(norm(torch.zeros(shape, device=DEVICE)).grad_fn).__name__ == "NativeGroupNormBackward0"


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_the_variance_of_half_precision_is_never_negative() -> None:
    """The mean is a thousand times as large as the deviation."""
    x = (100 + 0.1 * torch.randn(1, 2, 64, 64)).to(torch.bfloat16)
    found, _ = Normalisation.of(x, torch.ones(2), torch.zeros(2), Options(1, 1e-5))
    assert 99 < float(found.mean) < 101
    assert 0 < float(found.rstd) < 400


@pytest.mark.parametrize("norm", ["layer", "group", "instance"])
def test_volumes_with_channels_last_are_normalised_exactly_with_and_without_a_graph(norm: str) -> None:
    """torch adds up 48³ numbers one by one: its outputs would have relative errors of 1e-5."""
    torch.manual_seed(0)
    x = (torch.randn(1, 8, 48, 48, 48) + 0.3).contiguous(memory_format=torch.channels_last_3d)
    block = ConvBlock(8, 8, spatial_dims=3, depth=1, norm=norm)
    with torch.no_grad():
        plain = block[1](x)
        expected = copy.deepcopy(block).double()[1](x.double().contiguous())
    groups = 1 if norm == "layer" else 8
    fused, _, _ = Normalised.apply(x, block[1].weight, block[1].bias, Options(groups, 1e-5), True, False)
    for found in (plain, fused):
        assert (found - expected).norm() < 3e-7 * expected.norm()
