"""Probabilities of integer images: constants, sums over all images, latents, samples, precision, errors."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, ActNorm, InvertibleModule, Sequential, invertible_roots, set_backprop
from src.invertible.layers.logit import FixedAffine
from src.models.density import DEQUANTISATIONS, PREPROCESSINGS, DensityModel
from src.models.dequantisation import VariationalDequantisation
from src.models.glow import Glow
from src.models.realnvp import RealNVP
from tests.invertible.layers.test_oracles import jacobian_logdet
from tests.models.test_realnvp import perturbed

FLOWS = {"realnvp": lambda c: RealNVP(c, 2, 1, 4, 1), "glow": lambda c: Glow(c, 2, 2, 4)}
NORMAL = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)


class Given(nn.Module):
    """Noise that is given, of log-density zero."""

    def __init__(self, u: Tensor) -> None:
        super().__init__()
        self.u = u

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.u.expand_as(images), images.new_zeros(len(images))


def images(*shape: int, num_bins: int = 256) -> Tensor:
    return torch.randint(0, num_bins, shape, generator=torch.Generator().manual_seed(1)).double()


def model(flow: str, channels: int = 1, size: int = 4, **options: object) -> DensityModel:
    net = perturbed(DensityModel(FLOWS[flow](channels), (channels, size, size), **options)).double()  # type: ignore[arg-type]
    assert isinstance(net, DensityModel)
    return net


@pytest.mark.parametrize("num_bins", [2, 32, 256])
def test_centred_identity_flow_gives_the_normal_density_of_the_grey_values(num_bins: int) -> None:
    k = images(3, 3, 2, 2, num_bins=num_bins)
    u = torch.rand(3, 3, 2, 2, dtype=torch.float64)
    net = DensityModel(FixedAffine(1.0), (3, 2, 2), num_bins, Given(u), "centre")
    found = net.log_likelihood(k)
    expected = NORMAL.log_prob((k + u) / num_bins - 0.5).sum((1, 2, 3))
    torch.testing.assert_close(found.prior, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.total, expected - 12 * math.log(num_bins), rtol=0, atol=1e-10)
    assert found.dequantisation.abs().max() == 0
    bits = -(expected - 12 * math.log(num_bins)) / (12 * math.log(2))
    torch.testing.assert_close(net.bits_per_dim(found.total), bits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_bins", [2, 32, 256])
def test_logit_and_an_affine_flow_give_the_logistic_change_of_variables(num_bins: int) -> None:
    k = images(3, 1, 2, 2, num_bins=num_bins)
    u = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    net = DensityModel(FixedAffine(0.7, -0.2), (1, 2, 2), num_bins, Given(u), "logit")
    y = 0.05 + 0.9 * (k + u) / num_bins
    z = 0.7 * (y / (1 - y)).log() - 0.2
    slope = 0.7 * 0.9 / num_bins / (y * (1 - y))
    expected = (NORMAL.log_prob(z) + slope.log()).sum((1, 2, 3))
    torch.testing.assert_close(net.log_likelihood(k).total, expected, rtol=0, atol=1e-10)


def probabilities(net: DensityModel, num_points: int) -> Tensor:
    """p(k) of every image of two pixels, (num_bins, num_bins), with the noise integrated over a grid of midpoints."""
    points = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    u = torch.cartesian_prod(points, points)[:, None]  # (N, 1, 2)
    net.dequantisation = Given(u)
    found = []
    for k in itertools.product(range(net.num_bins), repeat=2):
        with torch.no_grad():
            total = net.log_likelihood(torch.tensor(k, dtype=torch.float64).expand(len(u), 1, 2)).total
        found.append(total.exp().mean())
    return torch.stack(found).reshape(net.num_bins, net.num_bins)


def test_probabilities_under_the_identity_are_those_of_the_normal_distribution() -> None:
    net = DensityModel(FixedAffine(3.0), (1, 2), 4, preprocessing="centre")
    edges = NORMAL.cdf(3 * (torch.arange(5, dtype=torch.float64) / 4 - 0.5))
    expected = torch.outer(edges.diff(), edges.diff())
    torch.testing.assert_close(probabilities(net, 60), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("preprocessing", "scale"), [("centre", 12.0), ("logit", 2.0)])
def test_probabilities_of_all_images_sum_to_one(preprocessing: str, scale: float) -> None:
    # The scale puts the latent's bulk on grey values in range: what lies outside belongs to no image.
    flow = Sequential(FixedAffine(scale), RealNVP(1, 1, 1, 8, 1, norm="none", spatial_dims=1))
    net = perturbed(DensityModel(flow, (1, 2), 4, preprocessing=preprocessing)).double().eval()
    found = probabilities(net, 60)  # type: ignore[arg-type]
    assert (found - found.T).abs().max() > 0.01
    torch.testing.assert_close(found.sum(), found.new_tensor(1.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flow", FLOWS)
def test_logdet_is_that_of_the_jacobian_and_the_inverse_is_exact(flow: str, channels: int, preprocessing: str) -> None:
    net, k = model(flow, channels, preprocessing=preprocessing), images(2, channels, 4, 4)
    u = torch.rand(k.shape, dtype=torch.float64)
    net.dequantisation = Given(u)
    found = net.log_likelihood(k)
    torch.testing.assert_close(found.logdet[0], jacobian_logdet(net.bijection, k + u, 0), rtol=0, atol=1e-8)
    z = net.bijection(k + u)
    torch.testing.assert_close(found.prior, NORMAL.log_prob(z).sum((1, 2, 3)), rtol=0, atol=1e-10)
    torch.testing.assert_close(net.decode(z), k + u, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dequantisation", DEQUANTISATIONS)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("flow", FLOWS)
def test_gradients_are_the_same_under_every_policy(flow: str, policy: str, dequantisation: str) -> None:
    noise = VariationalDequantisation(1, hidden_channels=4) if dequantisation == "variational" else dequantisation
    start, k = model(flow, dequantisation=noise), images(2, 1, 4, 4)

    def gradients(policy: str) -> dict[str, Tensor]:
        net = copy.deepcopy(start)
        set_backprop(net, policy)
        torch.manual_seed(0)
        net.bits_per_dim(net.log_likelihood(k).total).mean().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    expected, found = gradients("stored"), gradients(policy)
    assert found.keys() == expected.keys() == dict(start.named_parameters()).keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1.0), name


def test_flow_and_preprocessing_are_one_root() -> None:
    assert list(invertible_roots(model("glow"))) == ["bijection"]
    assert list(invertible_roots(model("glow", dequantisation="variational"))) == ["dequantisation.flow", "bijection"]


@pytest.mark.parametrize("dequantisation", DEQUANTISATIONS)
def test_the_total_is_the_sum_of_its_parts_in_finite_numbers(dequantisation: str) -> None:
    net = model("realnvp", 3, 8, dequantisation=dequantisation)
    found = net.log_likelihood(images(5, 3, 8, 8))
    assert all(part.shape == (5,) for part in found)
    torch.testing.assert_close(found.total, sum(found), rtol=0, atol=1e-12)
    assert found.total.isfinite().all()
    assert (found.dequantisation == 0).all() == (dequantisation == "uniform")


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
@pytest.mark.parametrize("num_bins", [32, 256])
@pytest.mark.parametrize("flow", FLOWS)
def test_decoding_gives_the_middle_of_the_bins(flow: str, num_bins: int, preprocessing: str) -> None:
    net = model(flow, 3, 8, num_bins=num_bins, preprocessing=preprocessing)
    k = images(2, 3, 8, 8, num_bins=num_bins)
    z = net.encode(k)
    assert z.shape == k.shape
    torch.testing.assert_close(net(k), z)
    torch.testing.assert_close(net.decode(z), k + 0.5, rtol=0, atol=1e-8)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("dequantisation", DEQUANTISATIONS)
def test_integers_of_any_dtype_are_images(dequantisation: str, precision: torch.dtype) -> None:
    net = DensityModel(Glow(1, 1, 1, 4), (1, 4, 4), dequantisation=dequantisation).to(precision).eval()
    k = images(2, 1, 4, 4)
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64):
        torch.manual_seed(0)
        found, z = net.log_likelihood(k.to(dtype)).total, net.encode(k.to(dtype))
        if dtype == torch.uint8:
            expected, expected_z = found, z
        assert found.dtype == z.dtype == precision
        assert torch.equal(found, expected) and torch.equal(z, expected_z)


def test_samples() -> None:
    net = model("realnvp", 3, 8, num_bins=16)
    torch.manual_seed(0)
    first, second = net.sample(6), net.sample(6)
    assert first.shape == (6, 3, 8, 8)
    assert not first.requires_grad
    assert (first - second).abs().max() > 0.1
    assert first.min() == 0
    assert 15.99 < first.max() < 16
    torch.manual_seed(0)
    z = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(net.eval().decode(z).clamp(0, 16), first, rtol=0, atol=1e-6)
    torch.manual_seed(0)
    torch.testing.assert_close(net.sample(6, 0.5), net.decode(0.5 * z).clamp(0, 16), rtol=0, atol=1e-6)
    zero = net.decode(torch.zeros_like(z)).clamp(0, 16)
    torch.testing.assert_close(net.sample(6, temperature=0), zero, rtol=0, atol=1e-6)


def test_sampling_before_training_leaves_the_start_to_the_data() -> None:
    net = DensityModel(Glow(1, 1, 1, 4), (1, 4, 4))
    net.sample(3)
    assert net.training
    norms = [m for m in net.modules() if isinstance(m, ActNorm)]
    assert not any(m.initialized for m in norms)
    net.log_likelihood(images(3, 1, 4, 4).float())
    assert all(m.initialized for m in norms)


def test_a_flow_without_parameters_has_samples_too() -> None:
    assert DensityModel(FixedAffine(1.0), (1, 2, 2)).sample(3).shape == (3, 1, 2, 2)


@pytest.mark.parametrize("dequantisation", DEQUANTISATIONS)
@pytest.mark.parametrize("flow", FLOWS)
def test_likelihoods_stay_in_float32_under_autocast(flow: str, dequantisation: str) -> None:
    net = model(flow, 1, 8, dequantisation=dequantisation).float()
    k = images(2, 1, 8, 8).float()
    net.log_likelihood(k)  # sets the normalisations
    torch.manual_seed(0)
    expected = net.log_likelihood(k)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = net.log_likelihood(k)
        assert net.encode(k).dtype == torch.float32
    for part, full in zip(found, expected, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, full, rtol=0.1, atol=5.0)
    assert not torch.equal(found.total, expected.total)


GOOD = DensityModel(FixedAffine(1.0), (1, 2, 2), 256)
BAD = {
    "bins": (lambda: DensityModel(FixedAffine(1.0), (1, 2, 2), 1), "num_bins >= 2, got 1"),
    "shape": (lambda: DensityModel(FixedAffine(1.0), (4,)), r"channels and spatial sizes, got \(4,\)"),
    "preprocessing": (
        lambda: DensityModel(FixedAffine(1.0), (1, 2), preprocessing="tanh"),
        "logit, centre, got 'tanh'",
    ),
    "dequantisation": (
        lambda: DensityModel(FixedAffine(1.0), (1, 2), dequantisation="none"),
        "dequantisation to be one of uniform, variational, got 'none'",
    ),
    "image shape": (lambda: GOOD.log_likelihood(torch.zeros(1, 1, 2, 3)), r"shape \(B, 1, 2, 2\), got \(1, 1, 2, 3\)"),
    "latent shape": (lambda: GOOD.decode(torch.zeros(1, 2, 2)), r"shape \(B, 1, 2, 2\), got \(1, 2, 2\)"),
    "scaled": (
        lambda: GOOD.log_likelihood(torch.full((1, 1, 2, 2), 0.25)),
        "expected integer images, with grey values from 0 to 255, got 0.25",
    ),
    "negative": (lambda: GOOD.log_likelihood(torch.full((1, 1, 2, 2), -1.0)), "grey values from 0 to 255, got -1"),
    "too large": (lambda: GOOD.log_likelihood(torch.full((1, 1, 2, 2), 256)), "grey values from 0 to 255, got 256"),
    "undefined": (lambda: GOOD.log_likelihood(torch.full((1, 1, 2, 2), math.nan)), "from 0 to 255, got nan"),
    "size": (
        lambda: DensityModel(Glow(1, 2, 1, 4), (1, 6, 6)).log_likelihood(torch.zeros(1, 1, 6, 6)),
        r"divisible by 2\^2 = 4 for 2 levels, got \(6, 6\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_refuses(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_any_bijection_that_keeps_the_shape_is_a_flow() -> None:
    flow: InvertibleModule = ActNorm(3)
    assert DensityModel(flow, [3, 4, 4]).log_likelihood(images(8, 3, 4, 4).float()).total.shape == (8,)
