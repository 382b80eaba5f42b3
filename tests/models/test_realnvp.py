"""RealNVP: masks, start, oracles on images, density, memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.invertible import set_backprop
from src.invertible.inspection.reconstruction import LeafNames
from src.invertible.inspection.saved_bytes import ELSEWHERE, saved_by_block
from src.models.blocks import NORMS
from src.models.coupling_nets import ResidualNet
from src.models.realnvp import RealNVP, ScaledTanh
from tests.invertible.layers.test_oracles import jacobian_logdet


def perturbed(net: nn.Module, size: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize(("channels", "size", "levels"), [(1, (8, 8), 2), (3, (4, 4), 2), (3, (8, 4), 1)])
def test_inverse_and_logdet_on_images(channels: int, size: tuple[int, int], levels: int) -> None:
    flow = perturbed(RealNVP(channels, levels, 2, 4, 1)).double()
    assert isinstance(flow, RealNVP)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    z, logdet = flow.forward_and_logdet(x)
    assert z.shape == x.shape
    assert (flow.inverse(z) - x).abs().max() < 1e-10
    torch.testing.assert_close(logdet[0], jacobian_logdet(flow, x, 0), rtol=0, atol=1e-8)


def test_couplings_change_the_fields_of_a_checkerboard_in_turn() -> None:
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    colour = torch.arange(4)[:, None].add(torch.arange(6)) % 2
    for index, (changed, kept) in enumerate([(1, 0), (0, 1)]):
        flow = RealNVP(3, 1, 1, 4, 1).double().eval()
        couplings = [m for m in flow.modules() if type(m).__name__ == "GlowCoupling"]
        assert len(couplings) == 2
        nn.init.normal_(couplings[index].subnet.last.weight)  # type: ignore[union-attr, arg-type]
        difference = (flow(x) - x).abs()[0]
        assert difference[:, colour == kept].max() == 0
        assert difference[:, colour == changed].mean() > 0.1


def test_before_the_first_batch_it_is_a_permutation_and_on_one_level_the_identity() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(RealNVP(3, 1, 3, 4, 1).eval()(x), x)
    z, logdet = RealNVP(3, 3, 1, 4, 1).eval().forward_and_logdet(x)
    assert torch.equal(z.flatten(1).sort().values, x.flatten(1).sort().values)
    assert logdet.abs().max() == 0


def test_the_first_batch_in_training_makes_every_latent_channel_normal() -> None:
    torch.manual_seed(0)
    flow = RealNVP(1, 2, 1, 4, 1)
    z = flow(100 + 30 * torch.randn(64, 1, 8, 8))
    assert z.mean().abs() < 1e-4
    torch.testing.assert_close(z.square().mean(), torch.tensor(1.0), rtol=0, atol=1e-3)


def test_density_integrates_to_one() -> None:
    flow = perturbed(RealNVP(1, 1, 2, 8, 1, norm="none", spatial_dims=1)).double().eval()
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)[:, None, :]  # (B, 1, 2)
    with torch.no_grad():
        z, logdet = flow.forward_and_logdet(x)  # type: ignore[operator]
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2)).add(logdet).exp()
    assert (z - x).abs().max() > 0.3
    torch.testing.assert_close(density.sum() * (axis[1] - axis[0]) ** 2, density.new_tensor(1.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("policy", ["reversible", "stored"])
def test_saved_bytes_do_not_grow_with_the_number_of_couplings_under_reversible(policy: str) -> None:
    def saved(num_couplings: int) -> int:
        flow = RealNVP(1, 2, num_couplings, 4, 1)
        set_backprop(flow, policy)
        found = saved_by_block(flow, (torch.randn(2, 1, 8, 8),), LeafNames(flow))
        return sum(size for block, size in found.items() if block != ELSEWHERE)  # that is the caller's input

    assert (saved(1) == saved(4)) == (policy == "reversible")
    if policy == "reversible":
        assert saved(4) == 2 * 8 * 8 * 4


@pytest.mark.parametrize("norm", NORMS)
def test_residual_nets_with_every_norm_start_at_zero_and_learn(norm: str) -> None:
    torch.manual_seed(0)
    net = ResidualNet(3, 5, 8, 2, norm=norm)
    x = torch.randn(4, 3, 6, 6)
    assert net(x).shape == (4, 5, 6, 6)
    assert net(x).abs().max() == 0
    nn.init.normal_(net.last.weight)  # type: ignore[arg-type]
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    gradient = net.first.weight.grad
    assert isinstance(gradient, torch.Tensor) and gradient.abs().max() > 0


def test_the_residual_net_is_its_equation() -> None:
    net = ResidualNet(2, 3, 4, 2, norm="none")
    nn.init.normal_(net.last.weight)  # type: ignore[arg-type]
    x = torch.randn(1, 2, 5, 5)
    h = net.first(x)
    for block in net.blocks:
        first, second = (m for m in block.children() if isinstance(m, nn.Conv2d))
        h = h + second(first(h.relu()).relu())
    torch.testing.assert_close(net(x), net.last(h.relu()))


def test_hidden_channels_double_and_the_last_level_has_one_coupling_more_of_one_kind() -> None:
    flow = RealNVP(3, 3, 3, 4, 2)
    nets = [m for m in flow.modules() if isinstance(m, ResidualNet)]
    assert [(n.first.in_channels, n.first.out_channels) for n in nets] == [(6, 4)] * 6 + [(12, 8)] * 6 + [(24, 16)] * 4
    assert {len(n.blocks) for n in nets} == {2}
    assert sum(isinstance(m, ScaledTanh) for m in flow.modules()) == 16


BAD = {
    "couplings": (lambda: RealNVP(1, num_couplings=0), "num_couplings >= 1, got 0"),
    "levels": (lambda: RealNVP(1, num_levels=0), "expected num_levels >= 1, got 0"),
    "hidden": (lambda: RealNVP(1, hidden_channels=0), "hidden_channels >= 1, got 0"),
    "blocks": (lambda: RealNVP(1, num_residual_blocks=-1), "num_residual_blocks >= 0, got -1"),
    "norm": (lambda: RealNVP(1, norm="weight"), "expected norm to be one of .*'weight'"),
    "size": (lambda: RealNVP(1, 3, 1, 4, 1)(torch.zeros(1, 1, 28, 28)), r"divisible by 2\^3 = 8 .*got \(28, 28\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_refuses(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
