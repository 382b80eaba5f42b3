"""1×1 convolutions and permutations of the channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from src.invertible import FourierConvolution, HaarDownsampling, InvertibleModule, LearnedElementwise, OrthogonalMixing
from src.invertible.layers.affine import Scaling
from src.invertible.layers.linear import FixedLinear, InvertibleConv1x1, Permutation

WEIGHT = torch.tensor([[0.0, 2.0, 1.0], [1.0, -1.0, 0.5], [3.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("parametrisation", ["lu", "full"])
def test_it_starts_as_the_given_matrix(parametrisation: str) -> None:
    torch.manual_seed(0)
    layer = InvertibleConv1x1(3, parametrisation, WEIGHT).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y, logdet = layer.forward_and_logdet(x)
    expected = torch.nn.functional.conv2d(x, WEIGHT[:, :, None, None])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)  # the factors are made in float32
    torch.testing.assert_close(logdet, 20 * torch.linalg.slogdet(WEIGHT).logabsdet.expand(2), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in layer.parameters()) == 9


@pytest.mark.parametrize("parametrisation", ["lu", "full"])
def test_the_orthogonal_start_preserves_volume(parametrisation: str) -> None:
    torch.manual_seed(0)
    layer = InvertibleConv1x1(16, parametrisation)
    x = torch.randn(4, 16)
    y, logdet = layer.forward_and_logdet(x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=1e-5, atol=0)
    assert logdet.abs().max() < 1e-5
    assert (y - x).abs().max() > 0.1


@pytest.mark.parametrize("parametrisation", ["lu", "full"])
def test_the_identity_start(parametrisation: str) -> None:
    x = torch.randn(4, 5, 7)
    assert torch.equal(InvertibleConv1x1(5, parametrisation, "identity")(x), x)


@pytest.mark.parametrize("parametrisation", ["lu", "full"])
def test_autocast_leaves_it_in_float32(parametrisation: str) -> None:
    torch.manual_seed(0)
    layer, x = InvertibleConv1x1(8, parametrisation), torch.randn(2, 8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y, logdet = layer.forward_and_logdet(x)
        back = layer.inverse(y)
    assert y.dtype == logdet.dtype == back.dtype == torch.float32
    torch.testing.assert_close(y, layer(x), rtol=0, atol=0)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_unknown_options_and_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one of lu, full, got 'qr'"):
        InvertibleConv1x1(3, "qr")
    with pytest.raises(ValueError, match="identity, orthogonal or a matrix, got 'random'"):
        InvertibleConv1x1(3, init="random")
    with pytest.raises(ValueError, match=r"expected a matrix of shape \(2, 2\)"):
        InvertibleConv1x1(2, init=WEIGHT)
    with pytest.raises(ValueError, match="expected an invertible matrix"):
        InvertibleConv1x1(2, init=torch.ones(2, 2))
    for layer in (InvertibleConv1x1(3), Permutation(3)):
        for method in (layer.forward, layer.inverse):
            for shape in [(2, 4, 5), (3,)]:
                with pytest.raises(ValueError, match="expected 3 channels, got"):
                    method(torch.zeros(shape))


def test_a_fixed_matrix_is_inverted_in_the_precision_of_the_state_or_a_wider_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    layer = FixedLinear(WEIGHT)  # in float32
    torch.testing.assert_close(layer.inverse(layer(x)), x, rtol=0, atol=1e-12)
    half, layer = x.bfloat16(), layer.bfloat16()
    y, logdet = layer.forward_and_logdet(half)
    torch.testing.assert_close(layer.inverse(y), half, rtol=0, atol=0.1)
    torch.testing.assert_close(logdet.double(), 4 * torch.linalg.slogdet(WEIGHT).logabsdet.expand(2), rtol=0, atol=0.1)


ROUNDING: dict[str, Callable[[], InvertibleModule]] = {
    "linear": lambda: FixedLinear(WEIGHT),
    "convolution": lambda: InvertibleConv1x1(3),
    "mixing": lambda: OrthogonalMixing(3),
    "haar": lambda: HaarDownsampling(3, spatial_dims=2),
    "fourier": lambda: FourierConvolution(3, spatial_dims=2),
    "scaling": lambda: LearnedElementwise((3, 1, 1), Scaling(2.0)),
}


@pytest.mark.parametrize("name", ROUNDING)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_states_of_integers_are_refused_not_rounded(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"expected a state of real numbers, got {dtype}"):
        ROUNDING[name]()(torch.ones(1, 3, 4, 4, dtype=dtype))


def test_a_permutation_follows_its_seed_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = Permutation(32, seed=1), Permutation(32, seed=1), Permutation(32, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.order, again.order)
    assert not torch.equal(first.order, other.order)
    assert sorted(first.order.tolist()) == list(range(32))


def test_a_given_permutation() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    layer = Permutation(3, (2, 0, 1))
    assert layer(x).tolist() == [[2.0, 0.0, 1.0], [5.0, 3.0, 4.0]]
    restored = Permutation(3)
    restored.load_state_dict(layer.state_dict())
    assert torch.equal(restored.inverse(layer(x)), x)
    with pytest.raises(ValueError, match=r"permutation of 0 to 2, got \[0, 0, 1\]"):
        Permutation(3, [0, 0, 1])
