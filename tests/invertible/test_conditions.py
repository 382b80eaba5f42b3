"""Conditions: label embeddings and images, through couplings and chains, with gradients to their own network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, Inverse, InvertibleModule, OnChannels, OrthogonalMixing, Sequential, set_backprop
from src.invertible.layers.affine import Affine, AffineCoupling, GlowCoupling, Scaling
from src.invertible.layers.all_in_one import AllInOneBlock
from src.invertible.layers.coupling import AdditiveCoupling, TwoSidedCoupling, with_condition
from src.invertible.layers.elementwise import ConditionalElementwise, ElementwiseCoupling, LearnedElementwise, MapFamily
from src.invertible.layers.gaussian_mixture import GaussianMixture
from src.invertible.layers.householder import ConditionalHouseholder
from src.invertible.layers.linear import Permutation
from src.invertible.layers.splines import RationalQuadraticSpline
from src.invertible.module import Condition
from tests.invertible.layers.test_oracles import jacobian_logdet
from tests.invertible.table.couplings import COUPLINGS
from tests.invertible.table.samples import SPATIAL, dense, subnet

SAVING = [p for p in POLICIES if p != "stored"]
NUM_LABELS = 4


class Labels(nn.Module):
    """A learned embedding (B, 3) of class labels."""

    channels = 3

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_LABELS, self.channels)

    def forward(self, labels: Tensor, image: Tensor) -> Condition:
        return self.embedding(labels)


class Features(nn.Module):
    """Learned features (B, 2, *spatial) of an image."""

    channels = 2

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.features = subnet(spatial_dims)(1, 2) if spatial_dims else dense(1, 2)

    def forward(self, labels: Tensor, image: Tensor) -> Condition:
        return self.features(image)


class Both(nn.Module):
    """Both, as a tuple."""

    channels = Labels.channels + Features.channels

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.labels, self.features = Labels(spatial_dims), Features(spatial_dims)

    def forward(self, labels: Tensor, image: Tensor) -> Condition:
        return self.labels(labels, image), self.features(labels, image)


class Reflections(nn.Module):
    """Two reflections of five channels, (B, 5, 2), by class label."""

    channels = 0

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_LABELS, 10)

    def forward(self, labels: Tensor, image: Tensor) -> Condition:
        return self.embedding(labels).unflatten(1, (5, 2))


class Mixture(nn.Module):
    """Means and factors of a mixture by class label: three components in 5D, of which each sample has one, or, for
    states (B, 5, 8), five components in 8D at once."""

    channels = 0

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.sizes = (5, 8) if spatial_dims else (3, 5)
        self.entries = self.sizes[1] * (self.sizes[1] + 1) // 2
        self.means = nn.Embedding(NUM_LABELS, math.prod(self.sizes))
        self.factors = nn.Embedding(NUM_LABELS, self.sizes[0] * self.entries)

    def forward(self, labels: Tensor, image: Tensor) -> Condition:
        means = self.means(labels).unflatten(1, self.sizes)
        factors = self.factors(labels).unflatten(1, (self.sizes[0], self.entries))
        return (means, factors) if self.sizes[0] == 5 else (means, factors, torch.tensor([2, 0]))


SOURCES: dict[str, type[nn.Module]] = {
    "labels": Labels,
    "image": Features,
    "labels and image": Both,
    "reflections": Reflections,
    "mixture": Mixture,
}


def layer_of(name: str, d: int, condition_channels: int) -> InvertibleModule:
    constructor = subnet(d) if d else dense
    options = {"condition_channels": condition_channels}
    if name in COUPLINGS:
        return COUPLINGS[name](5, constructor, **options)
    if name == "householder":
        return Sequential(AdditiveCoupling(5, constructor), ConditionalHouseholder(5, 2))
    if name == "mixture":
        return GaussianMixture(8 if d else 5)
    if name == "spline":
        return ElementwiseCoupling(5, constructor, RationalQuadraticSpline(3), **options)
    if name in CONDITIONAL:
        return ConditionalElementwise(5, constructor, CONDITIONAL[name](), **options)
    if name == "all-in-one":
        return AllInOneBlock(5, constructor, reverse_permutation=True, permute_soft=True, **options)
    return Sequential(
        TwoSidedCoupling(AffineCoupling, 5, constructor, **options),
        OrthogonalMixing(5, init="random"),
        AdditiveCoupling(5, constructor),  # takes no condition
        OnChannels(GlowCoupling(3, constructor, flip=True, **options), 2),
        Inverse(AllInOneBlock(5, constructor, **options)),
        AdditiveCoupling(5, constructor, flip=True, **options),
    )


CONDITIONAL: dict[str, Callable[[], MapFamily]] = {
    "conditional affine": Affine,
    "conditional spline": lambda: RationalQuadraticSpline(3),
}
# Name of the layer, source of its condition, spatial dimensions.
CASES = [(name, source, 2) for name in (*COUPLINGS, "all-in-one", "chain") for source in ("labels", "image")]
CASES += [("chain", "labels and image", d) for d in (0, 1, 2, 3)]
CASES += [("conditional affine", "image", 2), ("conditional spline", "labels and image", 1), ("spline", "image", 0)]
CASES += [("householder", "reflections", 2), ("mixture", "mixture", 0), ("mixture", "mixture", 1)]


class Conditional(nn.Module):
    """A conditional bijection with the network of its condition, in float64, with labels, an image and a state."""

    def __init__(self, name: str, source: str, d: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.source = SOURCES[source](d)
        self.layer = layer_of(name, d, self.source.channels)  # type: ignore[arg-type]
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        spatial = SPATIAL[d] if d else ()
        self.labels = torch.tensor([1, 3])
        self.image = torch.randn(2, 1, *spatial, dtype=torch.float64)
        self.x = torch.randn(2, 5, *spatial, dtype=torch.float64)

    def condition(self) -> Condition:
        return self.source(self.labels, self.image)


@pytest.mark.parametrize(("name", "source", "d"), CASES)
def test_inverse_with_a_condition(name: str, source: str, d: int) -> None:
    net = Conditional(name, source, d)
    c = net.condition()
    y = net.layer(net.x, c)
    assert (net.layer.inverse(y, c) - net.x).abs().max() < 1e-10
    assert (net.layer.inverted()(y, c) - net.x).abs().max() < 1e-10
    net.labels = torch.tensor([0, 2])
    net.image = net.image + 1
    assert (net.layer.inverse(y, net.condition()) - net.x).abs().max() > 1e-3


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("name", "source", "d"), CASES)
def test_logdet_with_a_condition(name: str, source: str, d: int, inverted: bool) -> None:
    net = Conditional(name, source, d)
    c = net.condition()
    layer = Inverse(net.layer) if inverted else net.layer
    y, logdet = layer.forward_and_logdet(net.x, c)
    torch.testing.assert_close(y, layer(net.x, c), rtol=0, atol=1e-12)
    x, inverse_logdet = layer.inverse_and_logdet(y, c)
    torch.testing.assert_close(x, net.x, rtol=0, atol=1e-10)
    torch.testing.assert_close(inverse_logdet, -logdet, rtol=0, atol=1e-9)
    for b in range(2):
        expected = jacobian_logdet(lambda x: layer(x, c), net.x, b)  # type: ignore[arg-type]
        torch.testing.assert_close(logdet[b], expected, rtol=0, atol=1e-8)


def gradients(net: Conditional, method: str, policy: str) -> dict[str, Tensor]:
    """Gradients of a loss that depends on every output; those of the condition's network included."""
    net = copy.deepcopy(net)
    set_backprop(net, policy)
    x = net.x.clone().requires_grad_()
    result = getattr(net.layer, method)(x, net.condition())
    outputs = result if isinstance(result, tuple) else (result,)
    torch.stack([((o + 0.3) ** 3).sum() for o in outputs]).sum().backward()
    found = {"x": x.grad, **{name: p.grad for name, p in net.named_parameters() if p.requires_grad}}
    for name, grad in found.items():
        assert grad is not None, f"no gradient for {name}"
    return {name: grad for name, grad in found.items() if grad is not None}


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize(("name", "source", "d"), CASES)
def test_gradients_with_a_condition(name: str, source: str, d: int, policy: str, method: str) -> None:
    net = Conditional(name, source, d)
    expected, found = gradients(net, method, "stored"), gradients(net, method, policy)
    assert any(key.startswith("source.") for key in expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1.0), key


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("tracked", [False, True])
def test_only_a_tracked_condition_gets_a_gradient(policy: str, tracked: bool) -> None:
    net = Conditional("chain", "labels", 2)
    net.layer.requires_grad_(False)
    set_backprop(net, policy)
    c = torch.randn(2, 3, dtype=torch.float64, requires_grad=tracked)
    x = net.x.requires_grad_(not tracked)
    (net.layer(x, c) ** 2).sum().backward()
    assert (c.grad is not None) == tracked
    assert (x.grad is not None) == (not tracked)


@pytest.mark.parametrize("policy", POLICIES)
def test_condition_of_integers(policy: str) -> None:
    net = Conditional("chain", "labels", 2)
    set_backprop(net, policy)
    hot = nn.functional.one_hot(net.labels, 4)[:, 1:]
    found = []
    for c in (hot, hot.double()):
        net.zero_grad(set_to_none=True)
        (net.layer(net.x, c) ** 2).sum().backward()
        found.append([p.grad for p in net.layer.parameters()])
    for a, b in zip(*found, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_callers_condition_is_neither_freed_nor_changed(policy: str) -> None:
    net = Conditional("chain", "labels and image", 2)
    set_backprop(net, policy)
    c = net.condition()
    assert isinstance(c, tuple)
    before = [part.detach().clone() for part in c]
    (net.layer(net.x, c) ** 2).sum().backward()
    for part, expected in zip(c, before, strict=True):
        assert torch.equal(part, expected)


def test_condition_changed_in_place_before_backward_is_refused() -> None:
    net = Conditional("chain", "labels", 2)
    set_backprop(net, "reversible")
    c = torch.zeros(2, 3, dtype=torch.float64)
    loss = net.layer(net.x, c).sum()
    c.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("policy", SAVING)
def test_condition_under_autocast(policy: str) -> None:
    """The embedding network runs in bfloat16, so does its gradient; the state stays in float32."""
    found = []
    for each in ("stored", policy):
        net = Conditional("chain", "image", 2).float()
        set_backprop(net, each)
        with torch.autocast("cpu", torch.bfloat16):
            c = net.source(net.labels, net.image.float())
            y = net.layer(net.x.float(), c)
        assert (c.dtype, y.dtype) == (torch.bfloat16, torch.float32)
        (y**2).mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert (found[1] - found[0]).norm() < 2e-2 * found[0].norm()


@pytest.mark.parametrize("d", SPATIAL)
def test_label_is_the_same_for_every_voxel(d: int) -> None:
    x, c = torch.randn(2, 3, *SPATIAL[d]), torch.randn(2, 4)
    image = c.reshape(2, 4, *[1] * d).expand(2, 4, *SPATIAL[d])
    assert torch.equal(with_condition(x, c, 4), torch.cat((x, image), dim=1))
    assert torch.equal(with_condition(x, (c, image), 8), torch.cat((x, image, image), dim=1))


WRONG: dict[str, tuple[Condition, str]] = {
    "none": (None, "expected a condition of 3 channels, got none"),
    "channels": (torch.zeros(2, 4), "expected a condition of 3 channels, got 4"),
    "sum of channels": ((torch.zeros(2, 3), torch.zeros(2, 1, 6)), "expected a condition of 3 channels, got 4"),
    "labels": (torch.tensor([1, 2]), r"condition of shape \(2, C\) or \(2, C, 6\), got \(2,\)"),
    "batch": (torch.zeros(1, 3), r"condition of shape \(2, C\) or \(2, C, 6\), got \(1, 3\)"),
    "size": (torch.zeros(2, 3, 5), r"condition of shape \(2, C\) or \(2, C, 6\), got \(2, 3, 5\)"),
    "dimensions": (torch.zeros(2, 3, 6, 6), r"condition of shape \(2, C\) or \(2, C, 6\), got \(2, 3, 6, 6\)"),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_conditions_are_refused(name: str, policy: str) -> None:
    condition, message = WRONG[name]
    net = Sequential(AdditiveCoupling(4, subnet(1)), AffineCoupling(4, subnet(1), condition_channels=3))
    set_backprop(net, policy)
    for method in (net, net.inverse, net.forward_and_logdet, net.inverse_and_logdet):
        with pytest.raises(ValueError, match=message):
            method(torch.zeros(2, 4, 6), condition)


def test_a_list_is_refused_as_state_and_as_condition() -> None:
    net = Sequential(AffineCoupling(4, dense, condition_channels=3))
    state, condition = torch.zeros(2, 4), torch.zeros(2, 3)
    for method in (net, net.inverse, net.forward_and_logdet, net.inverse_and_logdet):
        with pytest.raises(TypeError, match="expected the condition as a tensor or a tuple of tensors, got a list"):
            method(state, [condition])
        with pytest.raises(TypeError, match="expected the state as a tensor or a tuple of tensors, got a list"):
            method([state], condition)


def test_vector_states_ask_for_vector_conditions() -> None:
    with pytest.raises(ValueError, match=r"condition of shape \(2, C\), got \(2, 3, 6\)"):
        with_condition(torch.zeros(2, 4), torch.zeros(2, 3, 6), 3)


@pytest.mark.parametrize("policy", POLICIES)
def test_condition_that_no_part_takes_is_refused(policy: str) -> None:
    net = Sequential(AdditiveCoupling(4, dense), OrthogonalMixing(4))
    set_backprop(net, policy)
    for method in (net, net.inverse, net.forward_and_logdet, net.inverse_and_logdet):
        with pytest.raises(ValueError, match="expected no condition, because no part of this Sequential takes one"):
            method(torch.zeros(2, 4), torch.zeros(2, 3))


LAYERS_OF_ONE: dict[str, InvertibleModule] = {
    "coupling": GlowCoupling(4, dense),
    "elementwise": LearnedElementwise((4,), Scaling()),
    "mixing": OrthogonalMixing(4),
    "permutation": Permutation(4),
}


@pytest.mark.parametrize("name", LAYERS_OF_ONE)
def test_tuples_are_refused_where_a_state_is_one_tensor(name: str) -> None:
    with pytest.raises(ValueError, match="expected a state of one tensor with 4 channels, got tuple"):
        LAYERS_OF_ONE[name]((torch.zeros(2, 4),))  # FrEIA's way


def evaluations(policy: str) -> tuple[int, int]:
    """Number of evaluations of all subnets of a conditional chain, in forward and in backward."""
    net = Conditional("chain", "labels", 2)
    set_backprop(net, policy)
    calls: list[nn.Module] = []
    for part in net.layer.modules():
        if isinstance(part, nn.Sequential):
            part.register_forward_hook(lambda module, *_: calls.append(module))
    y = net.layer(net.x, net.condition())
    num_forward = len(calls)
    y.sum().backward()
    return num_forward, len(calls) - num_forward


def test_conditional_subnets_are_evaluated_once_in_backward() -> None:
    assert evaluations("stored") == (8, 0)
    assert evaluations("reversible") == (8, 8)


Construct = Callable[[], InvertibleModule]
TAKES: dict[str, tuple[Construct, bool]] = {
    "coupling": (lambda: AdditiveCoupling(4, dense), False),
    "conditional": (lambda: AdditiveCoupling(4, dense, condition_channels=1), True),
    "inverse": (lambda: Inverse(GlowCoupling(4, dense, condition_channels=1)), True),
    "sequential": (lambda: Sequential(OrthogonalMixing(4), GlowCoupling(4, dense, condition_channels=1)), True),
    "block": (lambda: AllInOneBlock(4, dense, condition_channels=1).inverted(), True),
    "unconditional block": (lambda: AllInOneBlock(4, dense), False),
}


@pytest.mark.parametrize("name", TAKES)
def test_modules_know_whether_they_take_a_condition(name: str) -> None:
    construct, expected = TAKES[name]
    assert construct().takes_condition is expected
