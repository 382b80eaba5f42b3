"""Orthogonal matrices and what they start as: the paper's pixel shuffle and Haar transform."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.fake_values import DEVICE, FakeTensorMode
from benchmarks.live_bytes import LiveBytes
from src.invertible import Downsampling, Inverse, OrthogonalMatrices, OrthogonalMixing, Sequential, set_backprop
from src.invertible.engine.shared_values import shared_values, values_at_once
from src.invertible.layers.orthogonal import haar_matrix, outer_products, random_orthogonal, sum_in_parts
from src.invertible.layers.orthogonal_matrices import (
    PARAMETRISATIONS,
    matrix_exponential,
)

pytestmark = pytest.mark.usefixtures("double_precision")

METHODS = list(PARAMETRISATIONS)


# iUNet paper, section 2.2
PAPER_HAAR_THETA = torch.tensor([[0, 0, -1, -1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]).double() * math.pi / 4


def same_rows_up_to_order_and_sign(a: Tensor, b: Tensor, tolerance: float) -> bool:
    overlaps = (a @ b.mT).abs()  # a permutation matrix if the rows agree
    permutation = (overlaps > 0.5).to(a)
    ones = torch.ones(len(a), dtype=a.dtype)
    is_permutation = torch.equal(permutation.sum(0), ones) and torch.equal(permutation.sum(1), ones)
    return is_permutation and bool((overlaps - permutation).abs().max() < tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_matrices_are_orthogonal_at_any_theta(method: str, n: int) -> None:
    torch.manual_seed(0)
    matrices = OrthogonalMatrices(random_orthogonal(3, n), method)
    with torch.no_grad():
        matrices.theta.normal_(std=2.0)
    a = matrices()
    identity = torch.eye(n, dtype=torch.float64).expand(3, n, n)
    torch.testing.assert_close(a.mT @ a, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(a @ a.mT, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_single_precision_is_orthogonal_and_inverts_however_large_theta_is(method: str, scale: float) -> None:
    torch.manual_seed(0)
    mixing, x = OrthogonalMixing(64, method=method), torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        mixing.matrices.theta.normal_(std=scale)
        a = mixing.matrices().double()
        assert (a.mT @ a - torch.eye(64, dtype=torch.float64)).abs().max() < 1e-6
        assert (mixing.inverse(mixing(x)) - x).square().mean() < 2e-13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("determinant", [-1, 1])
def test_start_is_the_given_matrix_also_where_the_parametrisation_does_not_reach(method: str, determinant: int) -> None:
    given = torch.diag(torch.tensor([-1.0, determinant * -1.0, 1.0], dtype=torch.float64))[None]
    torch.testing.assert_close(OrthogonalMatrices(given, method)(), given, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_training_reaches_another_matrix_of_the_same_determinant(method: str) -> None:
    torch.manual_seed(0)
    target = random_orthogonal(1, 4)
    start = random_orthogonal(1, 4)
    start[:, 0] *= torch.linalg.det(start) * torch.linalg.det(target)
    matrices = OrthogonalMatrices(start, method)
    optimizer = torch.optim.LBFGS(
        matrices.parameters(), max_iter=500, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = ((matrices() - target) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() < 1e-8


def test_paper_theta_gives_the_haar_transform() -> None:
    haar = matrix_exponential(PAPER_HAAR_THETA)
    assert same_rows_up_to_order_and_sign(haar, haar_matrix((2, 2)), 1e-12)
    # The approximation is the mean of the block, the details are differences of halves and of diagonals.
    expected = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
    assert same_rows_up_to_order_and_sign(haar, torch.tensor(expected).double() / 2, 1e-12)


def test_symmetric_theta_gives_pixel_shuffle() -> None:
    theta = torch.randn(4, 4, dtype=torch.float64)
    torch.testing.assert_close(matrix_exponential(theta + theta.T), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS)
def test_pixel_shuffle_downsampling_is_pixel_unshuffle_exactly(method: str) -> None:
    x = torch.randn(2, 3, 6, 8)
    down = Downsampling(3, 2, spatial_dims=2, method=method, init="pixel_shuffle").double()
    torch.testing.assert_close(down(x.double()), F.pixel_unshuffle(x, 2).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_haar_downsampling_gives_block_means_and_signed_differences(method: str, d: int) -> None:
    x = torch.randn(2, 1, *(4, 6, 8)[:d], dtype=torch.float64)
    y = Downsampling(1, 2, spatial_dims=d, method=method, init="haar").double()(x)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[d]
    for channel, signs in enumerate(itertools.product((0, 1), repeat=d)):
        grid = torch.meshgrid(*(torch.arange(n) for n in x.shape[2:]), indexing="ij")
        alternating = torch.ones(x.shape[2:], dtype=torch.float64)
        for axis, is_detail in enumerate(signs):
            alternating = alternating * (-1.0) ** (grid[axis] * is_detail)
        expected = pool(x * alternating, 2) * 2**d / 2 ** (d / 2)
        torch.testing.assert_close(y[:, channel], expected[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [(2,), (3,), (4,), (5,), (2, 2), (2, 3), (1, 4), (2, 2, 2), (2, 1, 3)])
def test_haar_matrix_of_any_stride_is_orthogonal_with_the_mean_first(stride: tuple[int, ...]) -> None:
    haar, n = haar_matrix(stride), math.prod(stride)
    torch.testing.assert_close(haar @ haar.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(haar[0], torch.full((n,), n**-0.5, dtype=torch.float64))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_downsampling_is_the_grouped_strided_convolution_of_the_paper(d: int) -> None:
    stride = (2, 3, 1)[:d]
    x = torch.randn(2, 4, *(4, 6, 5)[:d], dtype=torch.float64)
    down = Downsampling(4, stride, spatial_dims=d, init="random").double()
    kernel = down.matrices().reshape(-1, 1, *stride)
    convolution = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[d]
    transposed = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[d]
    y = down(x)
    torch.testing.assert_close(y, convolution(x, kernel, stride=stride, groups=4))
    torch.testing.assert_close(down.inverse(y), transposed(y, kernel, stride=stride, groups=4))


def test_mixing_is_a_1x1_convolution() -> None:
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    mixing = OrthogonalMixing(4, init="random").double()
    torch.testing.assert_close(mixing(x), F.conv2d(x, mixing.matrices().reshape(4, 4, 1, 1)))


def test_network_cast_from_float32_is_orthogonal_in_float64() -> None:
    matrices = OrthogonalMatrices(random_orthogonal(2, 8).float()).double()
    a = matrices()
    torch.testing.assert_close(a.mT @ a, torch.eye(8).double().expand(2, 8, 8), rtol=0, atol=1e-12)


def test_half_precision_parameters_still_give_an_orthogonal_matrix() -> None:
    matrices = OrthogonalMatrices(torch.eye(8)[None]).to(torch.bfloat16)
    with torch.no_grad():
        matrices.theta.normal_()
    a = matrices()
    assert a.dtype == torch.float32
    torch.testing.assert_close(a.mT @ a, torch.eye(8, dtype=torch.float32)[None], rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [Downsampling(2, spatial_dims=2, init="random"), OrthogonalMixing(4, init="random")])
def test_autocast_leaves_orthogonal_maps_in_float32(layer: nn.Module) -> None:
    layer = layer.float()
    x = torch.randn(1, 4 if isinstance(layer, OrthogonalMixing) else 2, 4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, layer(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "givens"}, "expected method to be one of exp, cayley, householder, got 'givens'"),
        ({"init": "wavelet"}, "expected init to be haar, pixel_shuffle, random or a matrix, got 'wavelet'"),
        ({"init": torch.eye(3)}, r"expected a matrix of shape \(4, 4\) or \(2, 4, 4\), got \(3, 3\)"),
        ({"init": 2 * torch.eye(4)}, r"expected orthogonal matrices, got max\|AᵀA − I\| = 3.0e\+00"),
        ({"stride": 0}, "expected stride to be 2 positive integers or one, got 0"),
        ({"stride": (2, 2, 2)}, "expected stride to be 2 positive integers or one"),
        ({"num_reflections": 2}, "expected num_reflections >= 1 with method 'householder', got 2 with 'exp'"),
    ],
)
def test_bad_options_of_downsampling(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Downsampling(2, spatial_dims=2, **options)


def test_bad_inputs_of_orthogonal_maps() -> None:
    down, mixing = Downsampling(2, spatial_dims=2), OrthogonalMixing(3)
    with pytest.raises(ValueError, match=r"divisible by the stride \(2, 2\), got \(5, 4\)"):
        down(torch.zeros(1, 2, 5, 4))
    with pytest.raises(ValueError, match="expected 2 channels, got 3"):
        down(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="expected 8 channels, got 3"):
        down.inverse(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="expected 3 channels, got 2"):
        mixing(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="expected init to be identity, random or a matrix, got 'haar'"):
        OrthogonalMixing(3, init="haar")


def various_matrices() -> nn.ModuleList:
    torch.manual_seed(0)
    modules = [
        OrthogonalMatrices(random_orthogonal(num, n), method, learnable=learnable)
        for method, num, n, learnable in itertools.product(METHODS, (1, 3), (2, 8), (True, False))
    ]
    modules.append(OrthogonalMatrices(random_orthogonal(2, 8), "householder", num_reflections=3))
    modules.append(OrthogonalMatrices(random_orthogonal(2, 8).float()))
    for module in modules:
        module.theta.data.normal_()
    return nn.ModuleList(modules)


def test_matrices_at_once_are_those_one_by_one_with_the_same_gradients() -> None:
    modules = various_matrices()
    at_once = values_at_once(modules)
    assert set(at_once) == set(modules)
    for module, matrices in at_once.items():
        torch.testing.assert_close(matrices, module())
        assert matrices.requires_grad == module.theta.requires_grad
    trained = [m for m in at_once if m.theta.requires_grad]
    weights = [torch.randn_like(at_once[m]) for m in trained]
    thetas = [m.theta for m in trained]
    expected = torch.autograd.grad([m() for m in trained], thetas, weights)
    torch.testing.assert_close(torch.autograd.grad([at_once[m] for m in trained], thetas, weights), expected)


def test_matrices_of_one_kind_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    def counted(theta: Tensor) -> Tensor:
        sizes.append(tuple(theta.shape))
        return matrix_exponential(theta)

    modules = nn.ModuleList([OrthogonalMatrices(random_orthogonal(num, n)) for num, n in ((1, 4), (2, 8), (3, 4))])
    monkeypatch.setitem(PARAMETRISATIONS, "exp", counted)
    values_at_once(modules)
    assert sizes == [(4, 4, 4), (2, 8, 8)]


def test_layers_that_share_their_matrices_add_up_their_gradients() -> None:
    torch.manual_seed(0)
    first, second, third = (OrthogonalMixing(4, init="random") for _ in range(3))
    second.matrices = first.matrices
    third.matrices.theta.requires_grad_(False)
    net = Sequential(first, third, second, Inverse(first))
    x, gradients = torch.randn(2, 4, 3, 3), []
    for policy in ("stored", "reversible"):
        set_backprop(net, policy)
        net.zero_grad()
        (net(x).pow(3) * x).sum().backward()
        gradients.append(first.matrices.theta.grad.clone())
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1


def test_known_matrices_serve_where_no_gradient_is_asked_for() -> None:
    module = OrthogonalMatrices(random_orthogonal(1, 4))
    with torch.no_grad(), shared_values(module):
        known = module()
        assert module() is known
        with torch.enable_grad():
            assert module().requires_grad, "a graph needs values of its own"
    with torch.no_grad():
        assert module() is not known


class OtherMatrices(OrthogonalMatrices):
    """Computes its matrices in its own way."""

    def forward(self) -> Tensor:
        return super().forward().mT


def test_matrices_computed_in_another_way_keep_to_it() -> None:
    torch.manual_seed(0)
    layer = OrthogonalMixing(4, init="random")
    other = OtherMatrices(layer.matrices.start.clone())
    other.theta.data.normal_()
    layer.matrices = other
    gradients = []
    for policy in ("stored", "reversible"):
        set_backprop(layer, policy)
        layer.zero_grad()
        layer(torch.ones(2, 4, 3)).pow(3).sum().backward()
        gradients.append(other.theta.grad.clone())
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.1


@pytest.mark.parametrize(("norm", "tolerance"), [(1e-3, 4e-8), (0.1, 4e-8), (1.0, 2e-7), (10.0, 2e-6), (300.0, 4e-5)])
@pytest.mark.parametrize("n", [2, 8, 33])
def test_the_exponential_has_the_digits_of_its_precision(n: int, norm: float, tolerance: float) -> None:
    theta = torch.randn(2, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    skew = theta - theta.mT
    theta = (theta * (norm / torch.linalg.matrix_norm(skew, 2))[:, None, None]).float()
    exact = torch.linalg.matrix_exp((theta - theta.mT).double())
    assert (matrix_exponential(theta) - exact).abs().max() < tolerance
    precise = theta.double()
    expected = torch.linalg.matrix_exp(precise - precise.mT)
    assert (matrix_exponential(precise) - expected).abs().max() < 1e-13 * max(norm, 1)


def test_the_gradient_of_the_exponential_is_torchs() -> None:
    theta = torch.randn(3, 5, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 5, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((value * weights).sum(), theta)[0]
        for value in (matrix_exponential(theta), torch.linalg.matrix_exp(theta - theta.mT))
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "num_parts"), [((1, 1, 3, 50), 7), ((2, 3, 4, 64), 8), ((3, 2, 2, 9), 1)])
def test_a_sum_in_parts_is_the_sum(shape: tuple[int, ...], num_parts: int, last: bool) -> None:
    a, b = torch.randn(2, *shape, dtype=torch.float64)
    if last:  # each column's numbers lie side by side
        a, b = (part.mT.contiguous().mT for part in (a, b))
    torch.testing.assert_close(sum_in_parts(a, b, num_parts), (a @ b.mT).sum(0))


@pytest.mark.parametrize("shape", [(1, 1, 16, 2**24), (1, 8, 8, 2**21), (2, 1, 4, 2**20 + 3)])
def test_a_long_sum_on_a_gpu_is_split_without_a_copy(shape: tuple[int, ...]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        a, b = (torch.zeros(shape, device=DEVICE) for _ in range(2))
        with LiveBytes() as live:
            assert outer_products(a, b).shape == (shape[1], shape[2], shape[2])
    assert live.peak < a.numel() * a.element_size() / 100
