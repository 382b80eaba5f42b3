"""The i-ResNet as a classifier and as a flow: inverse, bounds, log-determinants, options, resuming."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    ActNorm,
    Checkerboard,
    ExactLogDet,
    LipSwish,
    ResidualBlock,
    RussianRouletteLogDet,
    TruncatedLogDet,
    invertible_roots,
    set_backprop,
)
from src.invertible.engine.reversible import keeps_input
from src.invertible.inspection.saved_bytes import kept_bytes
from src.invertible.layers.spectral_norm import SpectralNormalised
from src.models.iresnet import IResNetClassifier, IResNetFlow, contraction

SIZES = {1: (8,), 2: (8, 4), 3: (4, 4, 4)}


Net = TypeVar("Net", bound=nn.Module)


def at_the_bound(net: Net, seed: int = 0) -> Net:
    """The network with other, larger weights, which the normalisation has to reduce."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3).add_(0.2 * torch.randn_like(parameter))
    return net


def blocks_of(net: nn.Module) -> list[ResidualBlock]:
    return [module for module in net.modules() if isinstance(module, ResidualBlock)]


def count(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in net.modules())


def flow(
    in_channels: int = 1, num_levels: int = 2, num_blocks: int = 2, hidden: int = 4, **options: Any
) -> IResNetFlow:
    return at_the_bound(IResNetFlow(in_channels, num_levels, num_blocks, hidden, **options))


def classifier(num_blocks: tuple[int, ...] = (2, 1), hidden: int = 4, **options: Any) -> IResNetClassifier:
    return at_the_bound(IResNetClassifier(1, 3, num_blocks, hidden, **{"padded_channels": 3} | options))


@pytest.mark.parametrize("activation", ["elu", "lipswish"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_flow_keeps_the_shape_and_inverts_in_double_precision(d: int, activation: str) -> None:
    net = flow(2, activation=activation, spatial_dims=d, coefficient=0.97).double()
    x = torch.randn(2, 2, *SIZES[d], dtype=torch.float64)
    z = net(x)
    assert z.shape == x.shape
    assert (net.inverse(z) - x).abs().max() < 1e-10
    latent = torch.randn_like(x)
    assert (net(net.inverse(latent)) - latent).abs().max() < 1e-10


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_classifier_gives_logits_and_turns_its_features_back_into_the_image(d: int) -> None:
    net = classifier(spatial_dims=d).double()
    x = torch.randn(2, 1, *SIZES[d], dtype=torch.float64)
    features = net.encode(x)
    assert features.shape == (2, 3 * 2**d, *(n // 2 for n in SIZES[d]))
    assert (net.inverse(features) - x).abs().max() < 1e-10
    logits = net(x)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(logits, net.head(features), rtol=0, atol=0)


def test_the_features_hold_the_zeros_that_were_appended() -> None:
    net = classifier(padded_channels=5).double()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    padded = net.features.inverse(net.encode(x))
    assert padded.shape == (2, 5, 4, 4) and padded[:, 1:].abs().max() < 1e-10


@pytest.mark.parametrize("seed", range(2))
def test_float32_reconstructs_to_its_rounding_error(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(4, 1, 16, 16)
    net = at_the_bound(IResNetClassifier(1, 3, (3, 3, 3), 8), seed)
    generative = at_the_bound(IResNetFlow(1, 3, 4, 8), seed)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")  # each iteration converges
        assert (net.inverse(net.encode(x)) - x).abs().max() < 1e-4
        assert (generative.inverse(generative(x)) - x).abs().max() < 1e-4


@pytest.mark.parametrize("coefficient", [0.5, 0.9])
def test_blocks_stay_certified_contractions_when_the_weights_change(coefficient: float) -> None:
    net = flow(coefficient=coefficient).double()
    x = torch.randn(2, 1, 32, 32, dtype=torch.float64)
    for _ in range(3):
        net(x)
        bounds = [block.certified_lipschitz_constant() for block in blocks_of(net)]
        assert all(0.9 * coefficient**3 < bound < 1 for bound in bounds), bounds
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))


@pytest.mark.parametrize("training", [True, False])
def test_the_exact_logdet_is_that_of_the_jacobian(training: bool) -> None:
    net = flow(logdet="exact", eval_logdet="exact").double()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    net(x)  # starts the ActNorm layers
    _, logdet = net.train(training).forward_and_logdet(x)
    for sample, found in zip(x, logdet, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda part: net(part[None])[0], sample)
        expected = torch.linalg.slogdet(jacobian.reshape(x[0].numel(), -1)).logabsdet
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.fixture
def every_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 16 states of 4 numbers meets each vector of ±1 once: the mean of its trace estimates is exact."""
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).reshape(16, 4, 1, 1)
    monkeypatch.setattr(torch, "randint_like", lambda like, high, **options: bits.to(like))


def flow_of_four_numbers(**options: Any) -> tuple[IResNetFlow, Tensor, float]:
    """A flow, 16 copies of an image, and its log-determinant."""
    net = flow(num_levels=1, **options).double()
    net(torch.randn(4, 1, 2, 2, dtype=torch.float64))  # starts the ActNorm layers
    x = torch.randn(1, 1, 2, 2, dtype=torch.float64)
    exact = copy.deepcopy(net)
    for block in blocks_of(exact):
        block.logdet = ExactLogDet()
    return net, x.expand(16, -1, -1, -1), exact.forward_and_logdet(x)[1].item()


@pytest.mark.usefixtures("every_sign")
def test_the_truncated_logdet_approaches_the_exact_one_within_its_bound() -> None:
    rate, errors = 0.9**3, {}
    for num_terms in (1, 2, 5, 20, 80):
        net, x, exact = flow_of_four_numbers(num_terms=num_terms)
        errors[num_terms] = abs(net.forward_and_logdet(x)[1].mean().item() - exact)
        assert errors[num_terms] < 2 * 4 * rate ** (num_terms + 1) / ((num_terms + 1) * (1 - rate))
    assert errors[1] > 0.01 and errors[5] < 0.3 * errors[1] and errors[20] < 0.3 * errors[5]


@pytest.mark.usefixtures("every_sign")
def test_evaluation_is_closer_to_the_exact_logdet_than_training() -> None:
    net, x, exact = flow_of_four_numbers(num_terms=1, num_eval_terms=40)
    assert abs(net.train().forward_and_logdet(x)[1].mean().item() - exact) > 0.01
    assert abs(net.eval().forward_and_logdet(x)[1].mean().item() - exact) < 1e-4


def gradients(net: nn.Module, policy: str, x: Tensor) -> dict[str, Tensor]:
    net = copy.deepcopy(net)
    set_backprop(net, policy)
    x = x.clone().requires_grad_()
    if isinstance(net, IResNetFlow):
        z, logdet = net.forward_and_logdet(x)
        loss = (z**3).sum() - logdet.sum()
    else:
        loss = (net(x) ** 3).sum()
    loss.backward()
    assert x.grad is not None
    found = {"x": x.grad}
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"no gradient for {name}"
        found[name] = parameter.grad
    return found


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "stored"])
@pytest.mark.parametrize("keep_inputs", [True, False])
@pytest.mark.parametrize("kind", ["flow", "classifier"])
def test_gradients_under_every_policy_are_those_of_plain_autograd(kind: str, keep_inputs: bool, policy: str) -> None:
    net: nn.Module = (
        flow(logdet="exact", keep_inputs=keep_inputs) if kind == "flow" else classifier(keep_inputs=keep_inputs)
    )
    net = net.double()
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    expected, found = gradients(net, "stored", x), gradients(net, policy, x)
    for key, value in expected.items():
        assert (found[key] - value).abs().max() < 1e-9 * value.abs().max().clamp(min=1.0), key


@pytest.mark.parametrize("keep_inputs", [True, False])
@pytest.mark.parametrize("kind", ["flow", "classifier"])
def test_kept_inputs_spare_the_iteration(kind: str, keep_inputs: bool) -> None:
    net: nn.Module = flow(keep_inputs=keep_inputs) if kind == "flow" else classifier(keep_inputs=keep_inputs)
    set_backprop(net, "reversible")
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    for block in blocks_of(net):
        assert keeps_input(block) == keep_inputs
        assert (block.last_inversion is None) == keep_inputs
    assert not any(keeps_input(module) for module in net.modules() if isinstance(module, ActNorm))


@pytest.mark.parametrize("keep_inputs", [True, False])
def test_what_a_flow_saves_under_reversible(keep_inputs: bool) -> None:
    """The latent, and the input of each block if those are kept: on the second level they are half as large."""
    net = flow(num_levels=2, num_blocks=3, keep_inputs=keep_inputs)
    set_backprop(net, "reversible")
    x = torch.randn(2, 1, 8, 8)
    net(x)
    results = []
    kept = kept_bytes(net, lambda: results.append(net.forward_and_logdet(x)))
    assert results[0][1].requires_grad
    assert kept == x.numel() * 4 * (1 + keep_inputs * (3 + 3 / 2))


def test_the_invertible_part_of_either_network_is_one_tree() -> None:
    net, generative = classifier(), flow()
    assert invertible_roots(net) == {"features": net.features}
    assert invertible_roots(generative) == {"": generative}


def test_blocks_and_widths_per_level() -> None:
    net = IResNetFlow(3, 2, (1, 3), (5, 7))
    assert [block.channels for block in blocks_of(net)] == [12, 24, 24, 24]
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions] == [
        *[(12, 5, 3), (5, 5, 1), (5, 12, 3)],
        *[(24, 7, 3), (7, 7, 1), (7, 24, 3)] * 3,
    ]
    net = IResNetClassifier(3, 10, (1, 2), (5, 7), padded_channels=None)
    assert [block.channels for block in blocks_of(net)] == [3, 12, 12]
    assert {module.out_channels for module in net.features.modules() if isinstance(module, nn.Conv2d)} == {5, 3, 7, 12}


def test_the_papers_networks() -> None:
    net = IResNetClassifier(3, 10)
    assert [block.channels for block in blocks_of(net)] == [16] * 7 + [64] * 7 + [256] * 7
    assert count(net, nn.Conv2d) == 63 and count(net.head, nn.BatchNorm2d) == 1
    with torch.device("meta"):
        net_of_flow = IResNetFlow(3)
    assert [block.channels for block in blocks_of(net_of_flow)] == [12] * 16 + [24] * 16 + [48] * 16
    assert {c.out_channels for c in net_of_flow.modules() if isinstance(c, nn.Conv2d)} == {512, 12, 24, 48}
    block = blocks_of(net_of_flow)[0]
    assert repr(block.logdet) == "TruncatedLogDet(num_terms=5)"
    assert repr(block.eval_logdet) == "TruncatedLogDet(num_terms=20)"


@pytest.mark.parametrize("activation", ["elu", "lipswish"])
def test_the_activation_before_the_first_convolution_of_all_is_missing(activation: str) -> None:
    kind = {"elu": nn.ELU, "lipswish": LipSwish}[activation]
    nets: list[nn.Module] = [flow(activation=activation), classifier(activation=activation)]
    for net in nets:
        first, *others = blocks_of(net)
        assert count(first, kind) == 2 and isinstance(first.subnet[0], SpectralNormalised)  # type: ignore[index]
        assert all(count(block, kind) == 3 and isinstance(block.subnet[0], kind) for block in others)  # type: ignore[index]
        assert others


def test_an_actnorm_before_each_block_and_behind_each_level_of_a_flow() -> None:
    assert count(flow(num_levels=2, num_blocks=3), ActNorm) == 2 * (3 + 1)
    assert count(classifier((2, 1)), ActNorm) == 3
    assert count(classifier((2, 1), actnorm=False), ActNorm) == 0
    assert count(classifier((2, 1, 1)), Checkerboard) == 2


def test_the_latent_of_a_fresh_flow_is_normalised() -> None:
    torch.manual_seed(0)
    z = IResNetFlow(1, 2, 2, 4)(5 * torch.rand(16, 1, 8, 8) + 7)
    assert z.mean().abs() < 1e-5
    torch.testing.assert_close(z.std(unbiased=False), torch.tensor(1.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("coefficient", [0.6, 0.9])
def test_the_coefficient_bounds_every_convolution(coefficient: float) -> None:
    for net in (flow(coefficient=coefficient), classifier(coefficient=coefficient)):
        layers = [module for module in net.modules() if isinstance(module, SpectralNormalised)]
        assert len(layers) == 3 * len(blocks_of(net)) and {layer.coefficient for layer in layers} == {coefficient}


@pytest.mark.parametrize(
    ("options", "training", "evaluation"),
    [
        (
            {"logdet": "roulette", "num_terms": None, "eval_logdet": "exact"},
            "RussianRouletteLogDet(num_exact_terms=2, stop_probability=0.5)",
            "ExactLogDet()",
        ),
        (
            {"logdet": RussianRouletteLogDet(4, 0.1), "eval_logdet": "roulette", "num_eval_terms": 9},
            "RussianRouletteLogDet(num_exact_terms=4, stop_probability=0.1)",
            "RussianRouletteLogDet(num_exact_terms=9, stop_probability=0.5)",
        ),
        (
            {"num_terms": 3, "eval_logdet": TruncatedLogDet(8)},
            "TruncatedLogDet(num_terms=3)",
            "TruncatedLogDet(num_terms=8)",
        ),
    ],
)
def test_estimators_in_training_and_evaluation(options: dict[str, Any], training: str, evaluation: str) -> None:
    net = flow(**options)
    assert {repr(block.estimator) for block in blocks_of(net.train())} == {training}
    assert {repr(block.estimator) for block in blocks_of(net.eval())} == {evaluation}
    _, logdet = net.forward_and_logdet(torch.randn(2, 1, 4, 4))
    assert logdet.shape == (2,) and torch.isfinite(logdet).all()


def saved(net: nn.Module) -> dict[str, Any]:
    """The network's state after a way through a file."""
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def train(net: IResNetFlow, steps: int) -> None:
    torch.manual_seed(steps)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(steps):
        z, logdet = net.forward_and_logdet(torch.randn(4, 1, 8, 8))
        optimiser.zero_grad()
        (0.5 * z.square().flatten(1).sum(1) - logdet).mean().backward()
        optimiser.step()


def test_a_reloaded_flow_gives_the_same_bits_and_trains_on_alike() -> None:
    net = flow()
    train(net, 2)
    other = flow(coefficient=0.9)
    other(torch.randn(2, 1, 8, 8))
    other.load_state_dict(saved(net))
    x = torch.randn(2, 1, 8, 8)
    for _ in range(2):
        found = []
        for each in (net, other):
            torch.manual_seed(7)
            found.append(each.eval().forward_and_logdet(x))
            train(each.train(), 1)
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_a_reloaded_classifier_gives_the_same_bits() -> None:
    net, other = classifier(), at_the_bound(classifier(), seed=1)
    x = torch.randn(4, 1, 8, 8)
    net(x)
    other.load_state_dict(saved(net))
    assert torch.equal(net.eval()(x), other.eval()(x))
    assert torch.equal(net.inverse(net.encode(x)), other.inverse(other.encode(x)))


@pytest.mark.parametrize("policy", ["stored", "reversible"])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_autocast(training: bool, policy: str) -> None:
    net = flow(hidden=8)
    set_backprop(net, policy)
    x = torch.randn(4, 1, 8, 8)
    net(x)
    net.train(training)
    torch.manual_seed(0)
    expected = net.forward_and_logdet(x)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        z, logdet = net.forward_and_logdet(x)
    assert z.dtype == logdet.dtype == torch.float32 and torch.isfinite(logdet).all()
    assert (z - expected[0]).abs().max() < 0.1
    assert (logdet - expected[1]).abs().max() < 0.02 * x[0].numel()
    (z.square().sum() - logdet.sum()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


BAD: dict[str, tuple[Any, str]] = {
    "activation": (lambda: flow(activation="relu"), "expected activation to be one of elu, lipswish, got 'relu'"),
    "hidden": (lambda: contraction(0), "expected hidden_channels >= 1, got 0"),
    "dims": (lambda: flow(spatial_dims=4), "expected spatial_dims to be 1, 2 or 3, got 4"),
    "classifier dims": (lambda: classifier(spatial_dims=0), "expected spatial_dims to be 1, 2 or 3, got 0"),
    "levels": (lambda: IResNetFlow(1, 0), "expected num_levels >= 1, got 0"),
    "blocks": (lambda: IResNetFlow(1, 2, (1, 2, 3)), "expected num_blocks to be 2 positive integers or one"),
    "widths": (lambda: IResNetFlow(1, 2, 1, (4,)), "expected hidden_channels to be 2 positive integers or one"),
    "no scale": (lambda: IResNetClassifier(1, 3, ()), "expected num_blocks for at least one scale, got none"),
    "scale": (lambda: classifier((2, 0)), "expected num_blocks to be 2 positive integers or one"),
    "classifier widths": (lambda: IResNetClassifier(1, 3, (1, 1)), "expected hidden_channels to be 2 positive"),
    "padding": (lambda: classifier(padded_channels=0), "expected padded channels >= 1, those of the image"),
    "coefficient": (lambda: flow(coefficient=1.0), "expected a coefficient between 0 and 1, got 1.0"),
    "logdet": (lambda: flow(logdet="magic"), "expected logdet to be one of exact, truncated, roulette, got 'magic'"),
    "eval": (lambda: flow(eval_logdet="magic"), "expected logdet to be one of exact, truncated, roulette"),
    "terms": (lambda: flow(num_terms=0), "expected num_terms >= 1, got 0"),
    "eval terms": (lambda: flow(num_eval_terms=0), "expected num_terms >= 1, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_options_are_refused(name: str) -> None:
    construct, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        construct()


def test_wrong_states_are_refused() -> None:
    with pytest.raises(ValueError, match="divisible"):
        flow()(torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match="expected 1 channels, got 2"):
        classifier()(torch.zeros(1, 2, 8, 8))
