"""Glow: start, learned prior, oracles on images, density, memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.invertible import ActNorm, AdditiveCoupling, GlowCoupling, InvertibleConv1x1, Permutation, set_backprop
from src.invertible.inspection.reconstruction import LeafNames
from src.invertible.inspection.saved_bytes import ELSEWHERE, saved_by_block
from src.invertible.layers.linear import FullMatrix, LUMatrix
from src.models.coupling_nets import GlowNet
from src.models.glow import Glow, split_prior
from tests.invertible.layers.test_oracles import jacobian_logdet
from tests.models.test_realnvp import perturbed


@pytest.mark.parametrize(("channels", "size", "levels"), [(1, (8, 8), 2), (3, (4, 4), 2), (3, (8, 4), 1)])
@pytest.mark.parametrize("options", [{}, {"coupling": "additive", "permutation": "shuffle"}])
def test_inverse_and_logdet_on_images(channels: int, size: tuple[int, int], levels: int, options: dict) -> None:
    flow = perturbed(Glow(channels, levels, 2, 4, **options)).double()
    assert isinstance(flow, Glow)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    z, logdet = flow.forward_and_logdet(x)
    assert z.shape == x.shape
    assert (flow.inverse(z) - x).abs().max() < 1e-10
    torch.testing.assert_close(logdet[0], jacobian_logdet(flow, x, 0), rtol=0, atol=1e-8)


def test_options_choose_the_parts_and_every_level_has_its_steps() -> None:
    def parts(**options: object) -> list[type]:
        flow = Glow(3, 2, 3, 4, **options)  # type: ignore[arg-type]
        return [type(m) for m in flow.modules()]

    assert [parts().count(kind) for kind in (ActNorm, InvertibleConv1x1, LUMatrix, GlowNet)] == [6, 6, 6, 6]
    assert parts().count(GlowCoupling) == 6 + 1  # and the prior at the split
    assert parts(lu=False).count(FullMatrix) == 6
    assert parts(permutation="reverse").count(Permutation) == 6
    assert parts(coupling="additive").count(AdditiveCoupling) == 6
    reverse, shuffle = (
        [m.order.tolist() for m in Glow(1, 1, 2, 4, permutation=p).modules() if isinstance(m, Permutation)]
        for p in ("reverse", "shuffle")
    )
    assert reverse == [[3, 2, 1, 0]] * 2
    assert shuffle[0] != shuffle[1]


def test_sizes_of_the_paper_are_the_defaults() -> None:
    net = GlowNet(6, 12, 512)
    assert [(c.out_channels, c.kernel_size) for c in net if isinstance(c, nn.Conv2d)] == [
        (512, (3, 3)),
        (512, (1, 1)),
        (12, (3, 3)),
    ]
    assert Glow.__init__.__defaults__ == (3, 32, 512)


def test_before_the_first_batch_it_is_a_rotation() -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    z, logdet = Glow(3, 2, 3, 4).double().eval().forward_and_logdet(x)
    torch.testing.assert_close(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert logdet.abs().max() < 1e-4
    assert (z - x).abs().max() > 0.1


def test_the_first_batch_in_training_makes_the_latents_normal() -> None:
    torch.manual_seed(0)
    z = Glow(1, 2, 2, 4)(100 + 30 * torch.randn(64, 1, 8, 8))
    assert z.mean().abs() < 1e-4
    torch.testing.assert_close(z.square().mean(), torch.tensor(1.0), rtol=0, atol=1e-2)


def test_a_standard_normal_latent_behind_the_split_prior_is_a_normal_one_that_the_other_half_predicts() -> None:
    prior = perturbed(split_prior(4, 2)).double()
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64)
    z, logdet = prior.forward_and_logdet(x)  # type: ignore[operator]
    assert torch.equal(z[:, 2:], x[:, 2:])
    log_scale, shift = prior.log_scale_and_shift(x[:, 2:], None)  # type: ignore[operator]
    predicted = torch.distributions.Normal(-shift * (-log_scale).exp(), (-log_scale).exp())
    found = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, :2]).sum((1, 2, 3)) + logdet
    torch.testing.assert_close(found, predicted.log_prob(x[:, :2]).sum((1, 2, 3)), rtol=0, atol=1e-10)
    assert logdet.abs().min() > 0.1


def test_density_integrates_to_one() -> None:
    flow = perturbed(Glow(1, 1, 3, 8, spatial_dims=1)).double().eval()
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)[:, None, :]  # (B, 1, 2)
    with torch.no_grad():
        z, logdet = flow.forward_and_logdet(x)  # type: ignore[operator]
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2)).add(logdet).exp()
    torch.testing.assert_close(density.sum() * (axis[1] - axis[0]) ** 2, density.new_tensor(1.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("policy", ["reversible", "stored"])
def test_saved_bytes_do_not_grow_with_the_number_of_steps_under_reversible(policy: str) -> None:
    def saved(num_steps: int) -> int:
        flow = Glow(1, 2, num_steps, 4)
        set_backprop(flow, policy)
        found = saved_by_block(flow, (torch.randn(2, 1, 8, 8),), LeafNames(flow))
        return sum(size for block, size in found.items() if block != ELSEWHERE)  # that is the caller's input

    assert (saved(1) == saved(4)) == (policy == "reversible")
    if policy == "reversible":
        assert saved(4) == 2 * 8 * 8 * 4


BAD = {
    "steps": (lambda: Glow(1, num_steps=0), "num_steps >= 1, got 0"),
    "levels": (lambda: Glow(1, num_levels=0), "expected num_levels >= 1, got 0"),
    "hidden": (lambda: Glow(1, hidden_channels=0), "hidden_channels >= 1, got 0"),
    "coupling": (lambda: Glow(1, coupling="spline"), "coupling to be one of affine, additive, got 'spline'"),
    "permutation": (lambda: Glow(1, permutation="none"), "one of conv1x1, reverse, shuffle, got 'none'"),
    "size": (lambda: Glow(1, 3, 1, 4)(torch.zeros(1, 1, 28, 28)), r"divisible by 2\^3 = 8 .*got \(28, 28\)"),
    "channels": (lambda: Glow(1, 1, 1, 4)(torch.zeros(1, 3, 4, 4)), "expected 1 channels, got 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_it_refuses(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
