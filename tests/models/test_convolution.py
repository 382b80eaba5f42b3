"""The 3D convolution against torch's in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fake_values import FakeTensorMode
from src.models import convolution
from src.models.blocks import ConvBlock
from src.models.convolution import Conv3d, _would_be_slow, fast_layout
from src.models.iunet import IUNet

# Shape of the input, then the layer's arguments.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "one volume": ((1, 4, 8, 8, 8), {}),
    "one volume of odd depth": ((1, 4, 5, 6, 7), {}),
    "one plane": ((1, 4, 1, 6, 7), {}),
    "one voxel": ((1, 4, 1, 1, 1), {}),
    "volume smaller than the weight": ((1, 16, 2, 2, 2), {"out": 16}),
    "batch smaller than the weight": ((2, 16, 2, 2, 2), {"out": 16}),
    "batch": ((2, 4, 6, 5, 4), {}),
    "batch of rows of odd length": ((2, 4, 6, 5, 7), {}),
    "rows by a wide kernel": ((1, 2, 4, 6, 10), {"out": 3, "kernel_size": (1, 3, 5), "padding": (0, 1, 2)}),
    "large volume": ((1, 8, 52, 52, 4), {}),
    "one channel": ((1, 1, 6, 6, 6), {"out": 4}),
    "to one channel": ((1, 4, 6, 6, 6), {"out": 1}),
    "without bias": ((1, 4, 6, 6, 6), {"bias": False}),
    "kernel 1": ((1, 4, 6, 6, 6), {"kernel_size": 1, "padding": 0}),
    "kernel (1, 3, 5)": ((1, 4, 6, 6, 6), {"kernel_size": (1, 3, 5), "padding": (0, 1, 2)}),
    "kernel (5, 3, 1)": ((1, 4, 6, 6, 6), {"kernel_size": (5, 3, 1), "padding": (2, 1, 0)}),
    "stride": ((1, 4, 6, 6, 6), {"stride": 2}),
    "dilation": ((1, 4, 6, 6, 6), {"dilation": 2}),
    "groups": ((1, 4, 6, 6, 6), {"groups": 2}),
    "other padding": ((1, 4, 6, 6, 6), {"padding": 0}),
    "padding by name": ((1, 4, 6, 6, 6), {"padding": "same"}),
    "circular": ((1, 4, 6, 6, 6), {"padding_mode": "circular"}),
}


def layers(shape: tuple[int, ...], out: int = 4, **options: Any) -> tuple[Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    options = {"kernel_size": 3, "padding": 1} | options
    layer, oracle = Conv3d(shape[1], out, **options), nn.Conv3d(shape[1], out, **options)
    oracle.load_state_dict(layer.state_dict())
    return layer, oracle.double()


def values_and_gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad((y**3).sum(), [x, *layer.parameters()])]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_torchs(
    case: str, pairs: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_HAS_WIDE_VECTORS", pairs)
    shape, options = CASES[case]
    layer, oracle = layers(shape, **options)
    x = torch.randn(shape).contiguous(memory_format=layout)
    found = values_and_gradients(layer, x)
    assert_close(found, values_and_gradients(oracle, x.double()))
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((1, 8, 9, 9, 10), 8, True),
        ((1, 8, 9, 9, 9), 8, False),
        ((1, 8, 9, 9, 10), 9, False),
        ((1, 8, 4, 4, 4), 8, False),
        ((1, 8, 9, 50, 2), 8, False),
    ],
)
def test_what_goes_in_pairs(
    shape: tuple[int, ...], channels: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_HAS_WIDE_VECTORS", True)
    assert convolution._goes_in_pairs(torch.empty(shape), torch.empty(channels, 8, 3, 3, 3)) == expected
    monkeypatch.setattr(convolution, "_HAS_WIDE_VECTORS", False)
    assert not convolution._goes_in_pairs(torch.empty(shape), torch.empty(channels, 8, 3, 3, 3))


def test_rows_of_two_voxels_of_one_channel_among_several() -> None:
    """With the strides of a channel among several, oneDNN's convolution in pairs leaves such rows unwritten."""
    layer, oracle = layers((2, 1, 6, 16, 2), out=4)
    x = torch.empty_strided((2, 1, 6, 16, 2), (192, 1, 32, 2, 1)).normal_()
    assert_close(values_and_gradients(layer, x), values_and_gradients(oracle, x.double()))


@pytest.mark.parametrize("raised", [AttributeError, TypeError, RuntimeError])
def test_without_onednns_operator_the_convolution_is_torchs(
    raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*arguments: object) -> Tensor:
        raise raised("in a later version of torch")

    convolution._onednn.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.aten, "mkldnn_convolution", changed)
        assert convolution._onednn() is None
        layer, oracle = layers((1, 4, 8, 8, 8))
        x = torch.randn(1, 4, 8, 8, 8)
        assert_close(values_and_gradients(layer, x), values_and_gradients(oracle, x.double()))
    convolution._onednn.cache_clear()


def test_without_a_report_of_transforms_the_convolution_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_are_functorch_transforms_active")
    layer, oracle = layers((1, 4, 8, 8, 8))
    x = torch.randn(1, 4, 8, 8, 8)
    assert not layer.is_ours(x)
    assert_close(values_and_gradients(layer, x), values_and_gradients(oracle, x.double()))


def test_onednns_operator_is_there() -> None:
    assert convolution._onednn() is not None or not torch.backends.mkldnn.is_available()


def test_half_of_a_state_and_double_precision() -> None:
    layer, oracle = layers((1, 4, 8, 8, 8))
    x = torch.randn(1, 8, 8, 8, 8)[:, 4:]
    assert_close(values_and_gradients(layer, x), values_and_gradients(oracle, x.double()))
    assert torch.equal(layer.double()(x.double()), oracle(x.double()))


def test_the_input_is_kept_as_it_is_and_no_copy_of_it() -> None:
    layer, _ = layers((1, 4, 8, 8, 8))
    state = torch.randn(1, 8, 8, 8, 8)
    own = {t.untyped_storage().data_ptr() for t in (state, *layer.parameters())}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: own.remove(t.untyped_storage().data_ptr()), lambda t: t):
        layer(state[:, :4])
    assert own == {layer.bias.untyped_storage().data_ptr()}  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", ["input", "weight", "bias"])
def test_gradients_that_nobody_asks_for(frozen: str) -> None:
    gradients = []
    for layer in layers((1, 4, 8, 8, 8)):
        x = torch.randn(1, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1)).to(layer.weight.dtype)
        if frozen != "input":
            getattr(layer, frozen).requires_grad_(False)
            x.requires_grad_()
        layer(x).square().sum().backward()
        gradients.append([t.grad for t in (x, layer.weight, layer.bias)])
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        assert a is None or (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_second_derivatives() -> None:
    results = []
    for layer in layers((1, 4, 6, 6, 6)):
        x = torch.randn(1, 4, 6, 6, 6, generator=torch.Generator().manual_seed(1)).to(layer.weight.dtype)
        x.requires_grad_()
        first = torch.autograd.grad((layer(x) ** 3).sum(), [x, layer.weight], create_graph=True)
        second = torch.autograd.grad(sum((part**2).sum() for part in first), [x, layer.weight])
        results.append(list(second))
    assert_close(*results)


def test_the_jacobian_by_torch_func() -> None:
    layer, oracle = layers((1, 2, 2, 4, 2), out=2)
    x = torch.randn(1, 2, 2, 4, 2)
    found = torch.func.jacrev(layer)(x)
    assert_close([found], [torch.func.jacrev(oracle)(x.double())])


@pytest.mark.parametrize(
    ("channels", "side"), [(1, 8), (8, 32), (5, 64), (8, 50), (8, 51), (8, 52), (20, 32), (21, 32)]
)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_slow_kernel_is_avoided_where_torch_would_choose_it(batch: int, channels: int, side: int) -> None:
    layer, _ = layers((1, channels))
    x = torch.empty(batch, channels, side, side, 2)
    arguments = (x, layer.weight, layer.bias, (1, 1, 1), (1, 1, 1), (1, 1, 1), False, (0, 0, 0), 1, None)
    try:
        backend, slow = torch._C._select_conv_backend(*arguments), torch._C._ConvBackend.Slow3d
    except (AttributeError, TypeError) as error:
        pytest.skip(f"this version of torch does not tell its choice: {error}")
    assert _would_be_slow(x) == (backend == slow)


def test_under_autocast_the_values_are_bfloat16() -> None:
    layer, oracle = layers((1, 4, 8, 8, 8))
    x = torch.randn(1, 4, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert_close([y], [oracle(x.double())], tolerance=2e-2)


def test_a_step_can_be_counted_without_being_computed() -> None:
    """Fake tensors have shapes only: `benchmarks.segmentation_memory` counts the bytes of networks that fit nowhere."""
    with FakeTensorMode():
        layer = Conv3d(4, 4, 3, padding=1)
        x = torch.empty(1, 4, 8, 8, 8, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("split", [(8, 16), (16, 32, 64)])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_states_of_an_iunet_have_their_channels_last(split: tuple[int, ...], batch: int) -> None:
    """Else every convolution would lay its input out anew. Splitting off a single channel is the hard case."""
    net = IUNet(split, 2, 3)
    seen = []

    def look(module: nn.Module, arguments: tuple[Any, ...], y: Tensor) -> None:
        seen.append(y.is_contiguous(memory_format=torch.channels_last_3d))

    for block in net.modules():
        if isinstance(block, ConvBlock):
            block.register_forward_hook(look)
    y = net(torch.randn(batch, split[0], 8, 8, 8))
    assert all(seen)
    assert y.stride(1) == 1


LAYOUTS: dict[str, tuple[Callable[[], Tensor], bool]] = {
    "volume": (lambda: torch.zeros(1, 2, 2, 2, 2), True),
    "image": (lambda: torch.zeros(1, 2, 2, 2), False),
    "double precision": (lambda: torch.zeros(1, 2, 2, 2, 2, dtype=torch.float64), False),
    "other device": (lambda: torch.zeros(1, 2, 2, 2, 2, device="meta"), False),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_only_volumes_on_the_cpu_are_laid_out_anew(case: str) -> None:
    make, anew = LAYOUTS[case]
    x = make()
    assert (fast_layout(x) is not x) == anew


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "shape"),
    [
        *((3, 1, (depth, 2, 2)) for depth in (1, 2, 3)),
        *((5, 1, shape) for shape in [(1, 1, 4), (2, 4, 4), (3, 4, 4), (4, 4, 4), (5, 1, 4), (5, 2, 1), (8, 8, 8)]),
        *((7, 1, shape) for shape in [(6, 4, 4), (7, 2, 4), (7, 3, 3)]),
        *(((5, 3, 3), 1, (4, 4, 4)), ((3, 5, 3), 1, (4, 1, 4))),
        *((3, 2, shape) for shape in [(1, 1, 1), (4, 4, 4), (6, 5, 3)]),
        *((5, 2, (6, 2, 4)), (4, 2, (8, 8, 8)), (2, 2, (4, 4, 4)), (1, 2, (4, 4, 4))),
    ],
)
def test_gradients_in_half_precision_are_gradients(
    kernel_size: Any, stride: int, shape: tuple[int, ...], dtype: torch.dtype, autocast: bool
) -> None:
    sizes = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
    options = {"kernel_size": sizes, "stride": stride, "padding": tuple((size - 1) // 2 for size in sizes)}
    layer, oracle = (made.float() for made in layers((2, 16, *shape), out=16, **options))
    x = torch.randn(2, 16, *shape)
    y = oracle(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    if not autocast:
        layer, x = layer.to(dtype), x.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        y = layer(x)
    assert y.dtype == dtype
    y.backward(grad.to(dtype))
    for found, expected in zip(layer.parameters(), oracle.parameters(), strict=True):
        assert (found.grad - expected.grad).norm() < 0.02 * expected.grad.norm()


@pytest.mark.parametrize("depth", [2, 3])
def test_autocast_leaves_double_precision_alone(depth: int) -> None:
    layer, oracle = (made.double() for made in layers((1, 4, depth, 4, 4)))
    x = torch.randn(1, 4, depth, 4, 4, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), oracle(x))
