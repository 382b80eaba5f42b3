"""The Fourier convolution against the dense circulant matrix, and at its edges."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import src.invertible.layers.fourier as fourier
from src.invertible.layers.fourier import FourierConvolution, logabsdet, spectrum

CASES = [
    ((3,), (7,)),
    ((4,), (8,)),
    ((5,), (3,)),
    ((3, 3), (4, 5)),
    ((2, 5), (5, 4)),
    ((7, 2), (3, 6)),
    ((6, 6), (6, 6)),
    ((3, 2, 3), (3, 4, 2)),
    ((2, 5, 1), (2, 3, 5)),
]


def layer_and_state(
    kernel_size: tuple[int, ...], spatial: tuple[int, ...], channels: int = 2
) -> tuple[FourierConvolution, Tensor]:
    torch.manual_seed(0)
    layer = FourierConvolution(channels, kernel_size, spatial_dims=len(spatial)).double()
    with torch.no_grad():
        layer.weight.add_(0.2 * torch.randn_like(layer.weight))
        layer.bias.normal_()
    return layer, torch.randn(3, channels, *spatial, dtype=torch.float64)


def circulant(weight: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """The matrix (C·N, C·N) of the convolution, tap by tap from the definition."""
    channels, kernel_size = weight.shape[0], weight.shape[2:]
    matrix = torch.zeros(channels, *spatial, channels, *spatial, dtype=weight.dtype)
    for n in itertools.product(*map(range, spatial)):
        for k in itertools.product(*map(range, kernel_size)):
            m = tuple((a + b - (s - 1) // 2) % N for a, b, s, N in zip(n, k, kernel_size, spatial, strict=True))
            matrix[(slice(None), *n, slice(None), *m)] += weight[(..., *k)]
    return matrix.reshape(channels * spatial_numel(spatial), -1)


def spatial_numel(spatial: tuple[int, ...]) -> int:
    return torch.Size(spatial).numel()


@pytest.mark.parametrize("max_direct_taps", [0, 10**6])
@pytest.mark.parametrize(("kernel_size", "spatial"), CASES)
def test_it_is_the_dense_circulant_matrix(
    kernel_size: tuple[int, ...], spatial: tuple[int, ...], max_direct_taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fourier, "MAX_DIRECT_TAPS", max_direct_taps)
    layer, x = layer_and_state(kernel_size, spatial)
    matrix = circulant(layer.weight.detach(), spatial)
    bias = layer.bias.repeat_interleave(spatial_numel(spatial))
    y, logdet = layer.forward_and_logdet(x)
    torch.testing.assert_close(y.flatten(1), x.flatten(1) @ matrix.T + bias, rtol=0, atol=1e-12)
    expected = torch.linalg.slogdet(matrix).logabsdet.expand(3)
    torch.testing.assert_close(logdet, expected, rtol=0, atol=1e-10)
    solved = torch.linalg.solve(matrix, (x.flatten(1) - bias).T).T
    torch.testing.assert_close(layer.inverse(x).flatten(1), solved, rtol=1e-10, atol=1e-10)


def test_an_odd_kernel_is_torchs_circular_convolution() -> None:
    layer, x = layer_and_state((3, 5), (6, 7))
    peer = torch.nn.Conv2d(2, 2, (3, 5), padding="same", padding_mode="circular", dtype=torch.float64)
    peer.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), peer(x), rtol=0, atol=1e-12)


def test_the_spectrum_is_the_ffts() -> None:
    weight = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    grid = torch.zeros(2, 2, 8, 9, dtype=torch.float64)
    grid[:, :, :3, :4] = weight
    expected = torch.fft.rfftn(grid.roll((-1, -1), dims=(2, 3)), dim=(2, 3)).conj().permute(2, 3, 0, 1)
    torch.testing.assert_close(spectrum(weight, (8, 9)), expected, rtol=0, atol=1e-13)


def test_one_layer_serves_every_spatial_size() -> None:
    layer, _ = layer_and_state((3, 3), (4, 4))
    for size in [(4, 4), (5, 9), (2, 1)]:
        x = torch.randn(2, 2, *size, dtype=torch.float64)
        torch.testing.assert_close(layer.inverse(layer(x)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("init", ["orthogonal", "identity"])
@pytest.mark.parametrize(("kernel_size", "spatial"), [(9, (32,)), (3, (16, 16)), (4, (15, 16)), (3, (6, 6, 6))])
def test_it_starts_well_conditioned(init: str, kernel_size: int, spatial: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = FourierConvolution(24, kernel_size, spatial_dims=len(spatial), init=init)
    singular_values = torch.linalg.svdvals(spectrum(layer.weight.detach(), spatial))
    assert singular_values.min() > 0.85
    assert singular_values.max() < 1.15
    if init == "identity":
        centre = spectrum(layer.weight.detach(), spatial)
        assert torch.linalg.matrix_norm(centre - torch.eye(24), ord=2).max() < 0.15


def test_a_singular_frequency_is_named() -> None:
    layer = FourierConvolution(2, 3, spatial_dims=2, init="identity")
    with torch.no_grad():
        # 1 + cos-like filter along the first dimension: zero at frequency N/2, whatever the second.
        layer.weight.zero_()
        layer.weight[:, :, :, 1] = torch.tensor([0.25, 0.5, 0.25]) * torch.eye(2)[..., None]
        layer.weight[:, :, 1, 2] += 0.1 * torch.eye(2)
        layer.weight[:, :, 1, 1] += 0.1 * torch.eye(2)
    x = torch.randn(1, 2, 6, 4)
    with pytest.raises(torch.linalg.LinAlgError, match=r"singular matrix at frequency \(3, 2\).*size \(6, 4\)"):
        layer.inverse(x)
    x = torch.randn(1, 2, 5, 3)
    torch.testing.assert_close(layer.inverse(layer(x)), x, rtol=0, atol=1e-4)


def test_autocast_leaves_it_in_float32() -> None:
    torch.manual_seed(0)
    layer, x = FourierConvolution(8, 3, spatial_dims=2), torch.randn(2, 8, 8, 8)
    expected, expected_logdet = layer.forward_and_logdet(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, logdet = layer.forward_and_logdet(x)
        back = layer.inverse(y)
    assert y.dtype == logdet.dtype == back.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(logdet, expected_logdet, rtol=0, atol=0)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_half_precision_states_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    layer, x = FourierConvolution(4, 3, spatial_dims=2), torch.randn(2, 4, 6, 6).bfloat16()
    y, logdet = layer.forward_and_logdet(x)
    assert (y.dtype, logdet.dtype, layer.inverse(y).dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    torch.testing.assert_close(y, layer(x.float()).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(("kernel_size", "spatial"), CASES)
def test_the_gradient_of_the_logdet_is_that_of_slogdet(kernel_size: tuple[int, ...], spatial: tuple[int, ...]) -> None:
    layer, x = layer_and_state(kernel_size, spatial, channels=3)
    (found,) = torch.autograd.grad(layer.forward_and_logdet(x)[1][0], layer.weight)
    logdet = torch.linalg.slogdet(circulant(layer.weight, spatial)).logabsdet
    (expected,) = torch.autograd.grad(logdet, layer.weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_float32_logdet_and_gradient_are_those_of_float64() -> None:
    torch.manual_seed(0)
    layer, size = FourierConvolution(32, 3, spatial_dims=2), (16, 16)
    with torch.no_grad():
        layer.weight.add_(0.05 * torch.randn_like(layer.weight))
    assert torch.linalg.cond(spectrum(layer.weight.detach().double(), size)).max() > 20
    single, double = (
        torch.autograd.functional.vjp(lambda w: logabsdet(spectrum(w, size), size[-1]), weight)
        for weight in (layer.weight.detach(), layer.weight.detach().double())
    )
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-6, atol=256 * 1e-6)
    error = (single[1].double() - double[1]).abs().max() / double[1].abs().max()
    assert error < 1e-5


@pytest.mark.parametrize(("kernel_size", "spatial"), CASES)
def test_convolving_can_be_differentiated_twice(kernel_size: tuple[int, ...], spatial: tuple[int, ...]) -> None:
    layer, x = layer_and_state(kernel_size, spatial)
    x.requires_grad_()
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(lambda state: layer(state).square(), x)


def test_the_logdet_refuses_to_be_differentiated_twice() -> None:
    layer, x = layer_and_state((3, 3), (4, 4))
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(layer.forward_and_logdet(x)[1].sum(), layer.weight, create_graph=True)


@pytest.mark.parametrize(("kernel_size", "spatial"), CASES)
def test_torch_func_differentiates_the_logdet(kernel_size: tuple[int, ...], spatial: tuple[int, ...]) -> None:
    layer, x = layer_and_state(kernel_size, spatial)
    weight = layer.weight.detach()

    def logdet(weight: Tensor) -> Tensor:
        return torch.func.functional_call(_Logdet(layer), {"layer.weight": weight}, (x,))[0]

    def expected(weight: Tensor) -> Tensor:
        return torch.linalg.slogdet(circulant(weight, spatial)).logabsdet

    for derivative in (torch.func.grad, torch.func.hessian):
        torch.testing.assert_close(derivative(logdet)(weight), derivative(expected)(weight), rtol=1e-9, atol=1e-9)
    assert torch.func.grad(lambda x: layer.forward_and_logdet(x)[1].sum())(x).count_nonzero() == 0


class _Logdet(torch.nn.Module):
    """The log-determinant as a forward pass."""

    def __init__(self, layer: FourierConvolution) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.forward_and_logdet(x)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims to be 1, 2 or 3, got 4"),
        ({"spatial_dims": 2, "kernel_size": (3, 0)}, "kernel_size to be 2 positive integers"),
        ({"spatial_dims": 2, "init": "zero"}, "orthogonal, identity, got 'zero'"),
    ],
)
def test_unknown_options_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FourierConvolution(2, **arguments)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 4), (2, 2)])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    layer = FourierConvolution(2, spatial_dims=2)
    for method in (layer.forward, layer.inverse, layer.forward_and_logdet):
        with pytest.raises(ValueError, match=r"shape \(B, 2, 2 spatial sizes\)"):
            method(torch.zeros(shape))
