"""Layers beside FrEIA's with copied weights, in float64: outputs, log-determinants, gradients, in both directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.invertible import Inverse, InvertibleModule, Sequential, TwoSidedCoupling
from src.invertible.interop import FreiaModule
from src.invertible.layers.activations import LearnedLeakyReLU
from src.invertible.layers.actnorm import ActNorm
from src.invertible.layers.affine import Affine, GlowCoupling, Scaling
from src.invertible.layers.all_in_one import GlobalAffine
from src.invertible.layers.elementwise import ConditionalElementwise, LearnedElementwise
from src.invertible.layers.gaussian_mixture import GaussianMixture, draw_components, triangular
from src.invertible.layers.householder import ConditionalHouseholder
from src.invertible.layers.linear import FixedLinear, Permutation
from src.invertible.layers.logit import Logit
from src.invertible.layers.mixing import OrthogonalMixing
from src.invertible.layers.resampling import Downsampling, HaarDownsampling
from src.invertible.layers.reshaping import Concat, Reshape, Split
from src.invertible.module import tensors_of
from src.invertible.shapes import as_state
from src.models import standard_normal_log_density
from tests.invertible.table.samples import dense, subnet

Fm = pytest.importorskip("FrEIA.modules")
pytestmark = [
    pytest.mark.usefixtures("double_precision"),
    pytest.mark.filterwarnings("ignore"),  # theirs, about deprecated classes and hooks
]

VECTOR, IMAGE = (5,), (3, 4, 6)


@dataclass
class Pair:
    """A layer of ours and one of theirs; ``weights`` are parameters that stand for the same, ours before theirs."""

    ours: InvertibleModule
    theirs: nn.Module
    weights: list[tuple[nn.Parameter, nn.Parameter]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: [VECTOR])
    conditions: list[Tensor] = field(default_factory=list)
    tolerance: float = 1e-10

    def copied(self) -> Pair:
        with torch.no_grad():
            for ours, theirs in self.weights:
                theirs.add_(0.3 * torch.randn_like(theirs))
                ours.copy_(theirs.reshape(ours.shape))
        return self


def subnets(*pairs: tuple[nn.Module, nn.Module]) -> list[tuple[nn.Parameter, nn.Parameter]]:
    return [two for ours, theirs in pairs for two in zip(ours.parameters(), theirs.parameters(), strict=True)]


def gin(shape: tuple[int, ...], conditional: bool) -> Pair:
    constructor = subnet(2) if len(shape) > 1 else dense
    condition = torch.randn(2, 2, *shape[1:])
    ours = TwoSidedCoupling(
        GlowCoupling, shape[0], constructor, split=0.5, volume_preserving="voxel", condition_channels=2 * conditional
    )
    theirs = Fm.GINCouplingBlock([shape], [(2, *shape[1:])] * conditional, subnet_constructor=constructor)
    first, second = (ours.get_submodule(f"{name}.subnet") for name in ("first", "second"))
    weights = subnets((first, theirs.subnet2), (second, theirs.subnet1))
    return Pair(ours, theirs, weights, [shape], [condition] * conditional)


def conditional_affine(shape: tuple[int, ...], activation: str) -> Pair:
    constructor = subnet(2) if len(shape) > 1 else dense
    conditions = [torch.randn(2, channels, *shape[1:]) for channels in (2, 1)]
    ours = ConditionalElementwise(shape[0], constructor, Affine(1.3, activation), condition_channels=3)
    theirs = Fm.ConditionalAffineTransform(
        [shape],
        [tuple(c.shape[1:]) for c in conditions],
        subnet_constructor=constructor,
        clamp=1.3,
        clamp_activation=activation.upper(),
    )
    return Pair(ours, theirs, subnets((ours.subnet, theirs.subnet)), [shape], conditions)


def scaling(shape: tuple[int, ...]) -> Pair:
    ours, theirs = LearnedElementwise(shape, Scaling()), Fm.LearnedElementwiseScaling([shape])
    return Pair(ours, theirs, [(ours.theta, theirs.s)], [shape])


def leaky_relu(shape: tuple[int, ...], symmetric: bool, learnable: bool = True) -> Pair:
    ours = LearnedLeakyReLU(shape[0], 1.7, 0.6, symmetric=symmetric, learnable=learnable)
    if symmetric:
        theirs = Fm.InvAutoAct([shape], slope_init=1.7, learnable=learnable)
        return Pair(ours, theirs, [(ours.log_positive, theirs.alpha)] if learnable else [], [shape])
    theirs = Fm.InvAutoActTwoSided([shape], init_pos=1.7, init_neg=0.6)
    weights = [(ours.log_positive, theirs.alpha_pos), (ours.log_negative, theirs.alpha_neg)]
    return Pair(ours, theirs, weights, [shape])


def linear(offset: bool) -> Pair:
    matrix, b = torch.randn(5, 5), torch.randn(5) if offset else None
    return Pair(FixedLinear(matrix, b), Fm.FixedLinearTransform([VECTOR], M=matrix, b=b))


def fixed_convolution() -> Pair:
    """Theirs multiplies by the transposed matrix."""
    matrix = torch.randn(3, 3)
    return Pair(FixedLinear(matrix.T), Fm.Fixed1x1Conv([IMAGE], M=matrix), shapes=[IMAGE])


def haar(rebalance: float, by_wavelet: bool, up: bool) -> Pair:
    ours: InvertibleModule = HaarDownsampling(3, spatial_dims=2, rebalance=rebalance, order_by_wavelet=by_wavelet)
    options = {"rebalance": rebalance, "order_by_wavelet": by_wavelet}
    if not up:
        return Pair(ours, Fm.HaarDownsampling([IMAGE], **options), shapes=[IMAGE])
    return Pair(ours.inverted(), Fm.HaarUpsampling([(12, 2, 3)], **options), shapes=[(12, 2, 3)])


def squeeze(legacy: bool, up: bool) -> Pair:
    down = Downsampling(3, spatial_dims=2, init="pixel_shuffle", learnable=False)
    order = torch.arange(12).reshape(3, 4).T.flatten().tolist()  # by voxel of the block instead of by channel
    ours: InvertibleModule = Sequential(down, Permutation(12, order)) if legacy else down
    if not up:
        return Pair(ours, Fm.IRevNetDownsampling([IMAGE], legacy_backend=legacy), shapes=[IMAGE])
    return Pair(Inverse(ours), Fm.IRevNetUpsampling([(12, 2, 3)], legacy_backend=legacy), shapes=[(12, 2, 3)])


def permutation() -> Pair:
    theirs = Fm.PermuteRandom([IMAGE], seed=3)
    return Pair(Permutation(3, theirs.perm.tolist()), theirs, shapes=[IMAGE])


def actnorm(shape: tuple[int, ...]) -> Pair:
    """Both start from the same first batch; theirs divides by N − 1."""
    ours, theirs = ActNorm(shape[0]), Fm.ActNorm([shape])
    first = 2 * torch.randn(8, *shape) + 1
    theirs([first])
    ours(first)
    count = first.numel() // shape[0]
    with torch.no_grad():
        factor = math.sqrt((count - 1) / count)
        torch.testing.assert_close(ours(first) * factor, theirs([first])[0][0], rtol=0, atol=1e-6)
        ours.log_scale.add_(math.log(factor))
        ours.shift.mul_(factor)
    return Pair(ours, theirs, [], [shape], tolerance=1e-6)


def householder(fixed: bool) -> Pair:
    theirs = Fm.HouseholderPerm([VECTOR], n_reflections=3, fixed=fixed)
    ours = OrthogonalMixing(5, method="householder", num_reflections=3)
    if fixed:
        return Pair(OrthogonalMixing(5, init=theirs.W.T.detach(), learnable=False), theirs, tolerance=1e-6)
    with torch.no_grad():
        ours.matrices.start.copy_(torch.eye(5)[None])
        # Theirs multiplies rows, hence by the transposed product.
        ours.matrices.theta.copy_(theirs.Vs.flip(0)[None])
    return Pair(ours, theirs)


def mixture(components: bool) -> Pair:
    shape = (4,) if components else (3, 4)
    means, factors, log_weights = torch.randn(2, 3, 4), torch.randn(2, 3, 10), torch.randn(2, 3)
    chosen = [torch.tensor([2, 0])] if components else []
    ours = GaussianMixture(4)
    theirs = Fm.GaussianMixtureModel([(4,)], [(3,), (3, 4), (3, 10), ()])
    # Theirs takes the weights too, which the bijection does not need.
    theirs_too = _Weighted(theirs, log_weights.softmax(-1), components)
    return Pair(ours, theirs_too, [], [shape], [means, factors, *chosen])


class _Weighted(nn.Module):
    """Their mixture called like ours."""

    def __init__(self, mixture: Any, weights: Tensor, components: bool) -> None:
        super().__init__()
        self.mixture, self.weights, self.components = mixture, weights, components
        self.dims_in, self.dims_c = mixture.dims_in, mixture.dims_c

    def forward(self, x: Any, c: Any = (), rev: bool = False, jac: bool = True) -> Any:
        means, factors, chosen = (*c, None)[:3]
        outputs, logdet = self.mixture(x, [self.weights, means, factors, chosen], rev=rev, jac=True)
        return outputs, logdet if logdet.ndim == 1 else logdet.sum(1)  # one for each component otherwise


PAIRS: dict[str, Callable[[], Pair]] = {
    "gin": lambda: gin(VECTOR, False),
    "gin-image": lambda: gin(IMAGE, False),
    "gin-image-condition": lambda: gin(IMAGE, True),
    "conditional-affine": lambda: conditional_affine(VECTOR, "atan"),
    "conditional-affine-image": lambda: conditional_affine(IMAGE, "tanh"),
    "scaling": lambda: scaling(VECTOR),
    "scaling-image": lambda: scaling(IMAGE),
    "leaky-relu": lambda: leaky_relu(VECTOR, True),
    "leaky-relu-fixed": lambda: leaky_relu(IMAGE, True, learnable=False),
    "leaky-relu-two-sided": lambda: leaky_relu(IMAGE, False),
    "linear": lambda: linear(True),
    "linear-no-offset": lambda: linear(False),
    "fixed-convolution": fixed_convolution,
    "sigmoid": lambda: Pair(Inverse(Logit()), Fm.InvertibleSigmoid([VECTOR])),
    "sigmoid-image": lambda: Pair(Inverse(Logit()), Fm.InvertibleSigmoid([IMAGE]), shapes=[IMAGE]),
    "haar": lambda: haar(1.0, False, up=False),
    "haar-rebalance": lambda: haar(0.7, False, up=False),
    "haar-by-wavelet": lambda: haar(1.5, True, up=False),
    "haar-up": lambda: haar(0.7, False, up=True),
    "haar-up-by-wavelet": lambda: haar(0.7, True, up=True),
    "squeeze": lambda: squeeze(legacy=False, up=False),
    "squeeze-up": lambda: squeeze(legacy=False, up=True),
    "squeeze-legacy": lambda: squeeze(legacy=True, up=False),
    "squeeze-legacy-up": lambda: squeeze(legacy=True, up=True),
    "permutation": permutation,
    "actnorm": lambda: actnorm(VECTOR),
    "actnorm-image": lambda: actnorm(IMAGE),
    "householder": lambda: householder(fixed=False),
    "householder-fixed": lambda: householder(fixed=True),
    "mixture": lambda: mixture(components=True),
    "mixture-all": lambda: mixture(components=False),
    "split": lambda: Pair(Split([1, 2]), Fm.Split([IMAGE], section_sizes=[1, 2]), shapes=[IMAGE]),
    "split-height": lambda: Pair(Split([2, 2], dim=2), Fm.Split([IMAGE], n_sections=2, dim=1), shapes=[IMAGE]),
    "split-channel": lambda: Pair(Split([2, 1]), Fm.SplitChannel([IMAGE]), shapes=[IMAGE]),
    "concat": lambda: Pair(Concat([1, 3]), Fm.Concat([(1, 4), (3, 4)]), shapes=[(1, 4), (3, 4)]),
    "concat-channel": lambda: Pair(Concat([1, 3]), Fm.ConcatChannel([(1, 4), (3, 4)]), shapes=[(1, 4), (3, 4)]),
    "flatten": lambda: Pair(Reshape(IMAGE), Fm.Flatten([IMAGE]), shapes=[IMAGE]),
    "reshape": lambda: Pair(Reshape(IMAGE, (6, 12)), Fm.Reshape([IMAGE], output_dims=(6, 12)), shapes=[IMAGE]),
}


@pytest.fixture(autouse=True)
def _numpys_seed() -> None:
    np.random.seed(0)  # noqa: NPY002 - FrEIA draws from numpy's global generator


def results(
    module: InvertibleModule, method: str, x: Any, pair: Pair, weights: Sequence[nn.Parameter]
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and log-determinant with the gradients of state, conditions and weights."""
    state = [part.clone().requires_grad_() for part in tensors_of(x)]
    conditions = [c.clone().requires_grad_(c.is_floating_point()) for c in pair.conditions]
    arguments = (as_state(state), as_state(conditions)) if conditions else (as_state(state),)
    y, logdet = getattr(module, method)(*arguments)
    outputs = [*tensors_of(y), logdet.expand(2)]
    loss = torch.stack([((part + 0.3) ** 3).sum() for part in outputs]).sum()
    inputs = [*state, *(c for c in conditions if c.requires_grad), *weights]
    return [part.detach() for part in tensors_of(y)], [logdet.expand(2), *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("name", PAIRS)
def test_layers_with_their_weights(name: str) -> None:
    pair = PAIRS[name]().copied()
    ours, theirs = zip(*pair.weights, strict=True) if pair.weights else ((), ())
    peer = FreiaModule(pair.theirs.double(), takes_condition=bool(pair.conditions))
    x = as_state([torch.randn(2, *shape) for shape in pair.shapes])
    for method in ("forward_and_logdet", "inverse_and_logdet"):
        y, found = results(pair.ours, method, x, pair, ours)
        expected_y, expected = results(peer, method, x, pair, theirs)
        for a, b in zip([*y, *found], [*expected_y, *expected], strict=True):
            torch.testing.assert_close(a, b.reshape(a.shape), rtol=pair.tolerance, atol=pair.tolerance)
        x = as_state(y)


def test_prescribed_reflections_are_theirs_sample_by_sample() -> None:
    """With a condition theirs fails, so each sample gets a layer with its reflections as weights."""
    x, condition = torch.randn(2, 5), torch.randn(2, 5, 3, requires_grad=True)
    theirs = Fm.HouseholderPerm([VECTOR], n_reflections=3)
    y = ConditionalHouseholder(5, 3)(x, condition)
    (found,) = torch.autograd.grad((y**3).sum(), condition)
    for b in range(2):
        with torch.no_grad():
            theirs.Vs.copy_(condition[b].T)
        (expected,), _ = theirs([x[b : b + 1]])
        torch.testing.assert_close(y[b : b + 1], expected, rtol=0, atol=1e-10)
        (gradient,) = torch.autograd.grad((expected**3).sum(), theirs.Vs)
        torch.testing.assert_close(found[b], gradient.T, rtol=0, atol=1e-10)


def test_an_orthogonal_transform_is_a_mixing_and_a_global_affine_map() -> None:
    theirs = Fm.OrthogonalTransform([VECTOR])
    mixing = OrthogonalMixing(5, init=theirs.weights.T.detach())
    ours = Sequential(mixing, GlobalAffine(5, "exp"))
    scale = theirs._log_e(theirs.scaling)[0].detach()
    with torch.no_grad():
        ours[1].scale.copy_(scale)
        ours[1].offset.copy_(scale.exp() * theirs.bias[0])
    x = torch.randn(2, 5)
    for module, rev in ((ours, False), (ours.inverted(), True)):
        y, logdet = module.forward_and_logdet(x)
        (expected,), expected_logdet = theirs([x], rev=rev)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(logdet, expected_logdet, rtol=0, atol=1e-10)


def test_likelihood_of_a_mixture_is_theirs_and_torchs() -> None:
    means, factors, log_weights = torch.randn(2, 3, 4), torch.randn(2, 3, 10), torch.randn(2, 3)
    x = torch.randn(2, 4)
    found = GaussianMixture(4).log_likelihood(x, log_weights, means, factors)
    theirs = Fm.GaussianMixtureModel([(4,)], [(3,), (3, 4), (3, 10), ()])
    weights = theirs.normalize_weights(log_weights)
    (z,), logdet = theirs([x], [weights, means, factors, None])
    # Theirs leaves out the constant of the normal distribution.
    expected = -theirs.nll_loss(weights, z, logdet) - 2 * math.log(2 * math.pi)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    upper, _ = triangular(factors, 4)
    normal = torch.distributions.MultivariateNormal(means, precision_matrix=upper.mT @ upper)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=log_weights), normal)
    torch.testing.assert_close(found, mixture.log_prob(x), rtol=0, atol=1e-10)


def test_components_are_drawn_by_their_weights() -> None:
    weights = torch.tensor([[0.7, 0.0, 0.3]]).expand(4000, 3)
    drawn = draw_components(weights.log(), torch.Generator().manual_seed(0))
    assert drawn.shape == (4000,)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert shares[1] == 0
    assert abs(shares[0] - 0.7) < 0.03


def test_densities_of_flows_are_theirs() -> None:
    distributions = pytest.importorskip("FrEIA.distributions", reason="release 0.2 has no distributions")
    theirs = Fm.GLOWCouplingBlock([VECTOR], subnet_constructor=dense).double()
    ours = FreiaModule(theirs)
    normal = distributions.StandardNormalDistribution(5, dtype=torch.float64)
    x = torch.randn(3, 5)
    z, logdet = ours.forward_and_logdet(x)
    found = standard_normal_log_density(z) + logdet
    torch.testing.assert_close(found, distributions.PullBackDistribution(normal, theirs).log_prob(x))
    z, logdet = ours.inverse_and_logdet(x)
    found = standard_normal_log_density(z) + logdet
    torch.testing.assert_close(found, distributions.PushForwardDistribution(normal, theirs).log_prob(x))
