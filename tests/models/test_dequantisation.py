"""Dequantisation: the noise's range, its density, and gradients through it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, set_backprop
from src.models.dequantisation import UniformDequantisation, VariationalDequantisation, logistic_log_density
from tests.models.test_realnvp import perturbed


def images(*shape: int, num_bins: int = 256) -> Tensor:
    return torch.randint(0, num_bins, shape, generator=torch.Generator().manual_seed(1)).double()


def variational(*args: int, **options: int) -> VariationalDequantisation:
    """One away from its start, where it is uniform."""
    net = perturbed(VariationalDequantisation(*args, hidden_channels=4, **options), 0.15).double()
    assert isinstance(net, VariationalDequantisation)
    return net


def test_uniform_noise() -> None:
    torch.manual_seed(0)
    k = images(5, 1, 40, 40)
    u, log_q = UniformDequantisation()(k)
    assert u.shape == k.shape
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() < 1
    assert torch.equal(log_q, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("dequantisation", [UniformDequantisation(), VariationalDequantisation(1, hidden_channels=4)])
def test_noise_is_drawn_from_the_global_generator(dequantisation: nn.Module) -> None:
    k = images(2, 1, 4, 4).float()
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(dequantisation(k)[0])
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], dequantisation(k)[0])


@pytest.mark.parametrize(("channels", "size"), [(1, (4,)), (3, (4, 6)), (1, (2, 4, 2))])
def test_variational_noise_starts_uniform(channels: int, size: tuple[int, ...]) -> None:
    net = VariationalDequantisation(channels, hidden_channels=4, spatial_dims=len(size)).double()
    torch.manual_seed(0)
    u, log_q = net(images(500, channels, *size))
    assert log_q.abs().max() < 1e-10
    expected = torch.linspace(0, 1, u.numel(), dtype=torch.float64)
    assert (u.flatten().sort().values - expected).abs().max() < 0.05


def test_variational_noise_lies_in_the_unit_interval_and_depends_on_the_image() -> None:
    net, k = variational(3), images(4, 3, 8, 8)
    torch.manual_seed(0)
    u, log_q = net(k)
    torch.manual_seed(0)
    other, _ = net(255 - k)
    assert u.shape == k.shape
    assert log_q.shape == (4,)
    assert 0 < u.min() < u.max() < 1
    assert (u - other).abs().mean() > 0.01


def test_density_of_the_noise_of_an_image_integrates_to_one() -> None:
    net = variational(1, spatial_dims=1)
    axis = torch.linspace(-25, 25, 501, dtype=torch.float64)  # of logits, since the density may have peaks at the edges
    u = torch.cartesian_prod(axis, axis)[:, None].sigmoid()  # (B, 1, 2): an image of two pixels
    area = (u * (1 - u)).flatten(1).prod(1) * (axis[1] - axis[0]) ** 2
    k = torch.tensor([[[3.0, 200.0]]], dtype=torch.float64)
    with torch.no_grad():
        condition = tuple(part.expand(len(u), -1, -1) for part in net.condition(k))
        noise, logdet = net.flow.inverse_and_logdet(u, condition)
    density = (logistic_log_density(noise) + logdet).exp()
    torch.testing.assert_close((density * area).sum(), density.new_tensor(1.0), rtol=0, atol=1e-3)
    assert (density - 1).mul(area).abs().sum() > 0.05  # not uniform


def test_log_q_is_the_density_at_the_noise_that_was_drawn() -> None:
    net, k = variational(3), images(4, 3, 4, 4)
    u, log_q = net(k)
    noise, logdet = net.flow.inverse_and_logdet(u, net.condition(k))
    torch.testing.assert_close(log_q, logistic_log_density(noise) + logdet, rtol=0, atol=1e-6)


def test_logistic_density() -> None:
    x = torch.tensor([[-3.0, 0.0], [1.0, 40.0]], dtype=torch.float64)
    expected = (torch.exp(-x) / (1 + torch.exp(-x)) ** 2).log().sum(1)
    torch.testing.assert_close(logistic_log_density(x), expected, rtol=0, atol=1e-12)


def gradients(net: VariationalDequantisation, k: Tensor, policy: str) -> dict[str, Tensor]:
    net = copy.deepcopy(net)
    set_backprop(net, policy)
    torch.manual_seed(0)
    u, log_q = net(k)
    (log_q.sum() + ((u + 0.3) ** 3).sum()).backward()
    assert all(p.grad is not None for p in net.parameters())
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
def test_gradients_reach_every_parameter_and_are_the_same_under_every_policy(policy: str) -> None:
    net, k = variational(3), images(2, 3, 4, 4)
    expected = gradients(net, k, "stored")
    for name, found in gradients(net, k, policy).items():
        scale = expected[name].abs().max().clamp(min=1.0)
        assert expected[name].abs().max() > 0, name
        assert (found - expected[name]).abs().max() < 1e-9 * scale, name


def test_gradients_are_exact_where_the_sigmoid_saturates() -> None:
    net, k = variational(1).float(), images(2, 1, 4, 4).float()
    with torch.no_grad():
        for coupling in net.flow.couplings:  # type: ignore[union-attr]
            coupling.subnet.conv2.bias[2:] += 12.0  # shifts: u rounds to 1
    torch.manual_seed(0)
    u, log_q = net(k)
    assert (u == 1).any()
    assert log_q.isfinite().all()
    expected, found = gradients(net, k, "stored"), gradients(net, k, "reversible")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


def test_images_of_few_grey_values_are_scaled_to_the_same_range() -> None:
    net = VariationalDequantisation(1, 4, hidden_channels=4)
    scaled, _ = net.condition(torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]))
    torch.testing.assert_close(scaled.flatten(), torch.tensor([-0.75, -0.25, 0.25, 0.75]))


BAD = {
    "couplings": (lambda: VariationalDequantisation(1, num_couplings=0), "num_couplings >= 1, got 0"),
    "hidden": (lambda: VariationalDequantisation(1, hidden_channels=0), "hidden_channels >= 1, got 0"),
    "dimension": (lambda: VariationalDequantisation(1, spatial_dims=4), "spatial_dims to be 1, 2 or 3, got 4"),
    "size": (lambda: VariationalDequantisation(1)(torch.zeros(1, 1, 3, 4)), r"divisible by .*\(2, 2\), got \(3, 4\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_refuses(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
