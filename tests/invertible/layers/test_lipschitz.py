"""Operator norms against dense singular values, and when the singular vectors move."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from src.invertible import Sequential, set_backprop
from src.invertible.layers import singular_vector
from src.invertible.layers.activations import SneakyReLU
from src.invertible.layers.fourier_norm import fourier_norm_bound
from src.invertible.layers.lipschitz import LipSwish, bound_lipschitz, lipschitz_constant
from src.invertible.layers.residual import ResidualBlock
from src.invertible.layers.spectral_norm import SpectralNormalised

Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
# Layer and the shape of its input; `circular` keep their size with stride 1: there the Fourier bound is the norm.
LAYERS: dict[str, Case] = {
    "linear": (lambda: nn.Linear(6, 9), (6,)),
    "linear-narrow": (lambda: nn.Linear(2, 3, bias=False), (2,)),
    "1d": (lambda: nn.Conv1d(3, 4, 5, padding=2), (3, 17)),
    "1d-one-voxel": (lambda: nn.Conv1d(3, 4, 3, padding=1), (3, 1)),
    "1d-even-kernel": (lambda: nn.Conv1d(3, 3, 4, padding="same"), (3, 8)),
    "1d-valid": (lambda: nn.Conv1d(3, 4, 3, padding="valid"), (3, 9)),
    "1d-wide-padding": (lambda: nn.Conv1d(2, 2, 3, padding=4), (2, 6)),
    "2d": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 7, 6)),
    "2d-one-channel": (lambda: nn.Conv2d(1, 1, 3, padding=1), (1, 16, 16)),
    "2d-strided": (lambda: nn.Conv2d(3, 6, 3, padding=1, stride=2), (3, 8, 7)),
    "2d-dilated": (lambda: nn.Conv2d(3, 3, 3, padding=2, dilation=2), (3, 6, 8)),
    "2d-grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 6, 6)),
    "2d-reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 6, 5)),
    "3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 4, 3, 5)),
    "3d-pointwise": (lambda: nn.Conv3d(3, 3, 1), (3, 2, 3, 2)),
    "circular-1d": (lambda: nn.Conv1d(3, 4, 5, padding=2, padding_mode="circular"), (3, 9)),
    "circular-1d-kernel-wider-than-image": (lambda: nn.Conv1d(2, 2, 5, padding=2, padding_mode="circular"), (2, 3)),
    "circular-2d": (lambda: nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), (3, 6, 7)),
    "circular-2d-same": (lambda: nn.Conv2d(2, 4, (2, 4), padding="same", padding_mode="circular"), (2, 5, 6)),
    "circular-2d-grouped-dilated": (
        lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2, padding_mode="circular"),
        (4, 6, 5),
    ),
    "circular-3d": (lambda: nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular"), (2, 4, 3, 5)),
}
FOURIER = [name for name in LAYERS if name != "2d-reflected"]


def make(name: str, scale: float = 4.0) -> tuple[nn.Module, tuple[int, ...]]:
    construct, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = construct().double()
    with torch.no_grad():
        layer.weight.mul_(scale)
    return layer, shape


def dense_norm(layer: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float:
    """Largest singular value of the layer's matrix."""
    x = torch.zeros(1, *shape, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), x)
    return torch.linalg.svdvals(jacobian.reshape(-1, x.numel()))[0].item()


@pytest.mark.parametrize("name", LAYERS)
def test_norm_is_the_largest_singular_value(name: str) -> None:
    layer, shape = make(name)
    found = SpectralNormalised(layer, 0.9).norm(shape).item()
    assert found == pytest.approx(dense_norm(layer, shape), rel=5e-4)


@pytest.mark.parametrize("coefficient", [0.5, 0.97])
@pytest.mark.parametrize("name", LAYERS)
def test_the_normalised_layer_obeys_its_bound(name: str, coefficient: float) -> None:
    layer, shape = make(name)
    found = dense_norm(SpectralNormalised(layer, coefficient), shape)
    assert coefficient * (1 - 1e-9) <= found <= coefficient * (1 + 1e-3)


def test_the_bound_holds_where_that_of_the_reshaped_kernel_fails() -> None:
    layer, shape = make("2d-one-channel")
    with torch.no_grad():
        layer.weight.fill_(1.0)
    reshaped = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
    assert dense_norm(layer, shape) > 2 * reshaped
    assert dense_norm(SpectralNormalised(layer, 0.9), shape) <= 0.9 * (1 + 1e-3)


def test_a_small_layer_is_left_as_it_is() -> None:
    layer, shape = make("2d", scale=0.01)
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(SpectralNormalised(layer, 0.9)(x), layer(x), rtol=0, atol=0)


def test_a_layer_that_starts_at_zero_has_its_plain_gradient() -> None:
    layer, shape = make("2d", scale=0.0)
    x = torch.randn(2, *shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad(layer(x).square().sum() + layer(x).sum(), layer.weight)
    y = SpectralNormalised(layer, 0.9)(x)
    (found,) = torch.autograd.grad(y.square().sum() + y.sum(), layer.weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_gradient_of_the_norm_is_that_of_the_singular_value() -> None:
    layer, shape = make("2d")
    normalised = SpectralNormalised(layer, 0.9, tolerance=1e-15)
    (found,) = torch.autograd.grad(normalised.norm(shape), layer.weight)

    def matrix_norm(weight: Tensor) -> Tensor:
        units = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).reshape(-1, *shape)
        return torch.linalg.matrix_norm(nn.functional.conv2d(units, weight, padding=1).flatten(1), ord=2)

    (expected,) = torch.autograd.grad(matrix_norm(layer.weight), layer.weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FOURIER)
def test_fourier_bound_is_above_the_norm_and_equal_for_circular_convolutions(name: str) -> None:
    layer, shape = make(name)
    bound, norm = fourier_norm_bound(layer, shape[1:]), dense_norm(layer, shape)
    assert norm <= bound * (1 + 1e-12)
    if name.startswith("linear") or (name.startswith("circular") and "wider" not in name):
        assert bound == pytest.approx(norm, rel=1e-10)
    elif "strided" not in name and "one-voxel" not in name:
        assert bound < 1.5 * norm


def test_certified_norm_is_the_bound_of_the_normalised_layer() -> None:
    layer, shape = make("circular-2d")
    normalised = SpectralNormalised(layer, 0.9)
    with pytest.raises(ValueError, match="expected a forward pass before the bound is computed"):
        normalised.certified_norm()
    normalised(torch.zeros(1, *shape, dtype=torch.float64))
    assert normalised.certified_norm() == pytest.approx(dense_norm(normalised, shape), rel=1e-10)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect"),
            "expected padding_mode zeros or circular, got 'reflect'",
        ),
        (nn.Conv1d(1, 1, 3, padding=2, padding_mode="circular"), "expected circular padding to keep the spatial size"),
    ],
)
def test_fourier_bound_refuses_other_paddings(layer: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fourier_norm_bound(layer, (8,))


def vectors(net: nn.Module) -> list[Tensor]:
    """Copies of all singular vectors of a network."""
    layers = [part for part in net.modules() if isinstance(part, SpectralNormalised)]
    return [tensors[0].clone() for layer in layers for tensors in layer.get_extra_state().values()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def flow() -> tuple[Sequential, Tensor]:
    torch.manual_seed(0)

    def subnet(dims_in: int, dims_out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(dims_in, 4, 3, padding=1), nn.ELU(), nn.Conv2d(4, dims_out, 3, padding=1))

    net = Sequential(ResidualBlock(2, subnet), ResidualBlock(2, subnet, logdet="truncated")).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(5)
    return net, torch.randn(2, 2, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("policy", ["stored", "reversible", "checkpoint", "memcnn"])
def test_vectors_advance_once_per_optimiser_step_and_not_on_recomputation(policy: str) -> None:
    net, x = flow()
    set_backprop(net, policy)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    y, logdet = net.forward_and_logdet(x)
    first = vectors(net)
    assert len(first) == 4
    (y.square().sum() - logdet.sum()).backward()
    net.inverse(y.detach())
    net(x)
    net.eval()(x)
    assert equal(vectors(net), first)
    optimiser.step()
    assert equal(vectors(net), first)
    net(x)
    second = vectors(net)
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    net.train()(x).sum().backward()
    assert equal(vectors(net), second)


def _one_step(optimiser: Callable[..., torch.optim.Optimizer], weight: nn.Parameter) -> None:
    weight.grad = torch.ones_like(weight)
    optimiser([weight], lr=2.0).step()


def _through_numpy(layer: nn.Module) -> None:
    layer.weight.detach().numpy()[...] += 2


# Ways to change a weight, some of which torch's version counter does not show.
WRITERS: dict[str, Callable[[nn.Module], object]] = {
    "fused-adamw": lambda layer: _one_step(functools.partial(torch.optim.AdamW, fused=True), layer.weight),
    "fused-adam": lambda layer: _one_step(functools.partial(torch.optim.Adam, fused=True), layer.weight),
    "fused-sgd": lambda layer: _one_step(functools.partial(torch.optim.SGD, fused=True), layer.weight),
    "fused-adagrad": lambda layer: _one_step(functools.partial(torch.optim.Adagrad, fused=True), layer.weight),
    "foreach-adamw": lambda layer: _one_step(functools.partial(torch.optim.AdamW, foreach=True), layer.weight),
    "data": lambda layer: layer.weight.data.add_(2),  # as averages of weights do
    "data-replaced": lambda layer: setattr(layer.weight, "data", layer.weight.data + 2),
    "numpy": _through_numpy,
    "state-dict": lambda layer: layer.load_state_dict({**layer.state_dict(), "weight": layer.weight + 2}),
    "state-dict-assigned": lambda layer: layer.load_state_dict(
        {**layer.state_dict(), "weight": layer.weight.detach() + 2}, assign=True
    ),
    "parameter": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight.detach() + 2)),
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["2d", "linear"])  # iterated, decomposed
def test_no_change_of_a_weight_goes_unnoticed(name: str, training: bool, write: str) -> None:
    layer, shape = make(name)
    normalised = SpectralNormalised(layer, 0.9).train(training)
    assert dense_norm(normalised, shape) <= 0.9 * (1 + 1e-3)
    before = layer.weight.detach().clone()
    WRITERS[write](layer)
    assert (layer.weight - before).abs().min() > 1
    assert 0.9 * (1 - 1e-9) <= dense_norm(normalised, shape) <= 0.9 * (1 + 1e-3)


@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
def test_recomputation_with_exchanged_weights_sees_the_vectors_of_the_forward_pass(policy: str) -> None:
    """One loss of three networks that share their modules: each backward comes after the others' forward."""
    net, x = flow()
    net(x)
    others = [{name: (p * (1 + 0.1 * k)).detach() for name, p in net.named_parameters()} for k in (1, 2)]

    def gradients(policy: str) -> list[Tensor]:
        trained = copy.deepcopy(net)
        set_backprop(trained, policy)
        weights = [{name: p.clone().requires_grad_() for name, p in each.items()} for each in others]
        inputs = [x.clone().requires_grad_() for _ in range(3)]
        outputs = [trained(inputs[0])]
        outputs += [torch.func.functional_call(trained, w, y) for w, y in zip(weights, inputs[1:], strict=True)]
        torch.stack([(y**3).sum() for y in outputs]).sum().backward()
        found = [p.grad for each in ([*trained.parameters()], *(w.values() for w in weights), inputs) for p in each]
        return [grad for grad in found if grad is not None]

    for found, expected in zip(gradients(policy), gradients("stored"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_evaluation_depends_on_the_weight_alone() -> None:
    """Not on the way to it: averaged weights are validated in the network that was trained, and loaded elsewhere."""
    torch.manual_seed(0)
    normalised = SpectralNormalised(nn.Conv2d(3, 8, 3, padding=1), 0.9)
    fresh = copy.deepcopy(normalised)
    for _ in range(3):
        normalised.norm((3, 40, 40))
        _one_step(torch.optim.SGD, normalised.layer.weight)
    fresh.layer.load_state_dict(normalised.layer.state_dict())
    assert torch.equal(normalised.eval().norm((3, 40, 40)), fresh.eval().norm((3, 40, 40)))


def test_vectors_of_dead_weights_are_forgotten() -> None:
    layer, shape = make("2d")
    normalised = SpectralNormalised(layer, 0.9)
    for _ in range(5):
        _one_step(functools.partial(torch.optim.SGD, fused=True), layer.weight)
        normalised.norm(shape)
        torch.func.functional_call(
            normalised, {"layer.weight": 3 * layer.weight.detach()}, torch.zeros(1, *shape).double()
        )
    assert len(normalised._settled[shape]) <= 2
    assert len(copy.deepcopy(normalised)._settled[shape]) <= 2


def test_vectors_follow_the_weights_through_many_steps() -> None:
    """The bound holds at every step of a run that pushes the norm up along changing directions."""
    layer, shape = make("2d")
    normalised = SpectralNormalised(layer, 0.9)
    optimiser = torch.optim.SGD(normalised.parameters(), lr=0.05)
    for _ in range(20):
        optimiser.zero_grad()
        (-normalised(torch.randn(4, *shape, dtype=torch.float64)).square().sum()).backward()
        optimiser.step()
        assert dense_norm(normalised, shape) <= 0.9 * (1 + 1e-3)


@pytest.mark.parametrize("size", [8, 100])  # decomposed, iterated
def test_vectors_notice_that_another_direction_became_the_largest(size: int) -> None:
    """Warm starts lie along the old singular vector, from where the new one is hard to see."""
    layer = nn.Linear(size, size, bias=False).double()
    normalised = SpectralNormalised(layer, 0.9)
    for largest in range(8):
        with torch.no_grad():
            layer.weight.copy_(torch.diag(1 + torch.nn.functional.one_hot(torch.tensor(largest), size)))
        assert dense_norm(normalised, (size,)) <= 0.9 * (1 + 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_norm_of_changing_convolutions_is_found_in_few_products(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many frequencies have nearly the largest norm, which an iteration cannot tell apart, and new ones take the lead;
    a circular convolution's bound is its norm."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 32, 3, padding=1, padding_mode="circular").to(dtype)
    normalised = SpectralNormalised(layer, 0.9)
    sweeps: list[None] = []
    sweep = singular_vector._sweep
    monkeypatch.setattr(singular_vector, "_sweep", lambda *args: (sweeps.append(None), sweep(*args))[1])
    errors = []
    for _ in range(30):
        found = normalised.norm((4, 14, 14)).item()
        errors.append(1 - found / fourier_norm_bound(layer, (14, 14)))
        with torch.no_grad():
            layer.weight.add_(0.005 * torch.randn_like(layer.weight))
    assert min(errors) > -1e-6 and max(errors) < 5e-3 and sum(errors) / len(errors) < 2e-4
    assert len(sweeps) <= 1.5 * len(errors)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_layers_of_low_rank_and_of_any_size_are_iterated(scale: float) -> None:
    """The basis has more vectors than the matrix has singular values: the rest is rounding errors, and does no harm."""
    torch.manual_seed(0)
    weight = scale * torch.outer(torch.randn(5), torch.randn(80)).double()
    layer = nn.Linear(80, 5).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    expected = torch.linalg.matrix_norm(weight, ord=2).item()
    assert SpectralNormalised(layer, 0.9).norm((80,)).item() == pytest.approx(expected, rel=1e-12)


def test_each_input_size_has_its_own_vectors() -> None:
    layer, _ = make("2d-one-channel")
    normalised = SpectralNormalised(layer, 0.9)
    for _ in range(2):
        for size in ((4, 4), (9, 5)):
            assert dense_norm(normalised, (1, *size)) <= 0.9 * (1 + 1e-3)
            assert normalised.norm((1, *size)).item() == pytest.approx(dense_norm(layer, (1, *size)), rel=5e-4)
    assert len(vectors(normalised)) == 2


def test_copies_and_reloaded_networks_keep_the_vectors() -> None:
    net, x = flow()
    y = net(x).detach()
    found = vectors(net)
    copied = copy.deepcopy(net)
    torch.testing.assert_close(copied(x), y, rtol=0, atol=0)
    assert equal(vectors(copied), found)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    torch.manual_seed(1)
    fresh = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.normal_()
    fresh(x)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(x), y, rtol=0, atol=0)
    assert equal(vectors(fresh), found)


def test_of_several_vectors_in_a_checkpoint_the_first_is_used() -> None:
    layer, shape = make("2d")
    normalised = SpectralNormalised(layer, 0.9)
    norm = normalised.norm(shape)
    ((key, (vector, weight)),) = normalised.get_extra_state().items()
    normalised.set_extra_state({key: (torch.cat((vector, torch.randn_like(vector))), weight)})
    assert torch.equal(normalised.norm(shape), norm)


def test_a_network_used_first_in_inference_mode_can_be_trained_after() -> None:
    net, x = flow()
    with torch.inference_mode():
        net(x.clone())
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_network_moves_between_precisions() -> None:
    net, x = flow()
    y = net(x)
    torch.testing.assert_close(net.float()(x.float()), y.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.bfloat16()(x.bfloat16()).double(), y, rtol=0, atol=0.2)


def test_the_global_random_state_is_left_alone() -> None:
    net, x = flow()
    before = torch.get_rng_state()
    net(x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("theta", [-3.0, 0.5, 4.0])
def test_lipswish_has_slopes_of_at_most_one(theta: float) -> None:
    activation = LipSwish().double()
    with torch.no_grad():
        activation.theta.fill_(theta)
    x = torch.linspace(-60, 60, 200001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(x).sum(), x)
    assert 0.99 < slope.abs().max() <= 1


@pytest.mark.parametrize(
    ("activation", "constant"),
    [
        (nn.Tanh(), 1.0),
        (nn.Softplus(beta=3), 1.0),
        (nn.CELU(alpha=3), 1.0),
        (SneakyReLU(), 1.0),
        (nn.ELU(), 1.0),
        (nn.ELU(alpha=2.5), 2.5),
        (nn.ELU(alpha=-2.0), 2.0),
        (nn.LeakyReLU(-3.0), 3.0),
        (nn.Sequential(nn.ELU(alpha=2.0), nn.Sequential(nn.LeakyReLU(4.0), nn.Identity())), 8.0),
        (LipSwish(), 1.0),
    ],
    ids=repr,
)
def test_lipschitz_constant_bounds_the_slopes(activation: nn.Module, constant: float) -> None:
    assert lipschitz_constant(activation) == constant
    x = torch.linspace(-30, 30, 20001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation.double()(x).sum(), x)
    assert slope.abs().max() <= constant


class _Skip(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize("part", [nn.BatchNorm2d(2), nn.SiLU(), nn.ConvTranspose2d(2, 2, 3), _Skip(nn.Linear(2, 2))])
def test_parts_of_unknown_constant_are_refused(part: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"known Lipschitz constant.* got {type(part).__name__}"):
        bound_lipschitz(nn.Sequential(nn.Linear(2, 2), part), 0.9)


def test_bound_lipschitz_normalises_nested_chains_and_repeated_layers() -> None:
    shared = nn.Linear(3, 3)
    net = bound_lipschitz(nn.Sequential(shared, nn.Sequential(nn.LeakyReLU(inplace=True), shared)), 0.5).double()
    assert lipschitz_constant(net) == 0.25
    x = torch.randn(2, 3, dtype=torch.float64)
    unchanged = x.clone()
    net(x)
    assert torch.equal(x, unchanged)
    with torch.no_grad():
        shared.weight.mul_(10)
    assert dense_norm(net[0], (3,)) == pytest.approx(0.5, rel=1e-3)
    assert dense_norm(net[1][1], (3,)) == pytest.approx(0.5, rel=1e-3)


def test_an_in_place_activation_at_the_front_leaves_the_input_alone() -> None:
    net = bound_lipschitz(nn.Sequential(nn.ELU(inplace=True), nn.Linear(3, 3)), 0.5)
    x = torch.full((1, 3), -1.0)
    net(x)
    assert torch.equal(x, torch.full((1, 3), -1.0))


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        (
            nn.ConvTranspose2d(1, 1, 3),
            {"coefficient": 0.9},
            "expected a Linear layer or a convolution, got ConvTranspose2d",
        ),
        (nn.Linear(2, 2), {"coefficient": 0.0}, "expected a positive coefficient, got 0.0"),
    ],
)
def test_wrong_options_are_refused(layer: nn.Module, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectralNormalised(layer, **options)


@pytest.mark.parametrize(
    ("layer", "shape", "voxels"),
    [
        (nn.Conv2d(3, 5, 1), (3, 6, 7), (1, 1)),
        (nn.Conv3d(4, 2, 1, stride=2, groups=2, padding="valid"), (4, 2, 3, 4), (1, 1, 1)),
        (nn.Conv1d(2, 3, 1, padding=1, padding_mode="circular"), (2, 5), (5,)),  # repeats a voxel: a larger norm
        (nn.Conv2d(2, 3, (1, 3)), (2, 4, 5), (4, 5)),
    ],
)
def test_a_pointwise_convolution_is_normalised_at_one_voxel(
    layer: nn.Module, shape: tuple[int, ...], voxels: tuple[int, ...]
) -> None:
    normalised = SpectralNormalised(layer, 0.1).double()
    assert dense_norm(normalised, shape) == pytest.approx(0.1, rel=1e-3)
    assert [tuple(found.shape[2:]) for found in vectors(normalised)] == [voxels]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    normalised = SpectralNormalised(nn.Linear(3, 3), 0.9)
    with torch.no_grad():
        normalised.layer.weight[0, 0] = value
    with pytest.raises(ValueError, match="expected finite weights, got infinite or undefined ones"):
        normalised(torch.zeros(1, 3))
