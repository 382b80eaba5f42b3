"""The multi-scale architecture: which numbers go how far, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from src.invertible import AdditiveCoupling, Checkerboard, Sequential, invertible_roots, set_backprop
from src.invertible.layers.logit import FixedAffine
from src.models.multiscale import group_by_parity, multiscale, squeezed_channels
from tests.invertible.layers.test_oracles import gradients
from tests.invertible.table.samples import subnet


@pytest.mark.parametrize(
    ("in_channels", "spatial_dims", "expected"),
    [(1, 2, [4, 8, 16]), (3, 2, [12, 24, 48]), (1, 1, [2, 2, 2]), (2, 3, [16, 64, 256])],
)
def test_squeezed_channels(in_channels: int, spatial_dims: int, expected: list[int]) -> None:
    assert squeezed_channels(in_channels, 3, spatial_dims) == expected


def test_factored_out_numbers_stay_where_they_are_and_the_others_go_through_coarser_levels() -> None:
    flow = multiscale([[FixedAffine(2)], [FixedAffine(3)], [FixedAffine(5), FixedAffine(7)]], 1)
    x = torch.randn(2, 1, 8, 16, dtype=torch.float64)
    # Of each block of 2×2, the first row is factored out, then of the second row the left.
    factors = torch.tensor([[2.0, 2.0], [2 * 3, 2 * 3 * 5 * 7]], dtype=torch.float64).repeat(4, 8)
    torch.testing.assert_close(flow(x), factors * x, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.inverse(factors * x), x, rtol=0, atol=1e-12)
    _, logdet = flow.forward_and_logdet(x)
    torch.testing.assert_close(logdet, factors.log().sum().expand(2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_without_steps_it_is_the_identity(spatial_dims: int) -> None:
    x = torch.randn(2, 3, *(8, 4, 4)[:spatial_dims])
    assert torch.equal(multiscale([[], []], 3, spatial_dims=spatial_dims)(x), x)


def test_it_is_one_root_for_the_engine() -> None:
    flow = multiscale([[AdditiveCoupling(c, subnet(2))] for c in squeezed_channels(1, 2)], 1)
    assert list(invertible_roots(torch.nn.ModuleDict({"flow": flow}))) == ["flow"]
    set_backprop(flow, "reversible")
    flow(torch.randn(2, 1, 4, 4)).sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_grouping_by_parity_makes_halves_of_the_fields_of_a_checkerboard(channels: int, spatial_dims: int) -> None:
    size = (4, 2, 6)[:spatial_dims]
    colour = torch.stack(torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")).sum(0) % 2
    squeeze = Checkerboard(2, spatial_dims=spatial_dims)
    grouping = group_by_parity(channels * 2**spatial_dims, spatial_dims)
    grouped = Sequential(squeeze, grouping)(colour.float().expand(1, channels, *size))
    even, odd = grouped.chunk(2, dim=1)
    assert even.eq(0).all()
    assert odd.eq(1).all()


def test_what_it_refuses() -> None:
    flow = multiscale([[], []], 3)
    for function in (flow, flow.inverse, flow.forward_and_logdet):
        with pytest.raises(ValueError, match="divisible by"):
            function(torch.zeros(1, 3, 8, 6))
    with pytest.raises(ValueError, match=r"divisible by 2\^2 = 4 for 2 levels, got \(8, 6\)"):
        flow(torch.zeros(1, 3, 8, 6))
    with pytest.raises(ValueError, match="expected 3 channels, got 1"):
        flow(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="expected num_levels >= 1, got 0"):
        multiscale([], 1)
    with pytest.raises(ValueError, match="expected in_channels >= 1, got 0"):
        multiscale([[]], 0)
    with pytest.raises(ValueError, match="spatial_dims to be 1, 2 or 3, got 4"):
        multiscale([[]], 1, spatial_dims=4)
    with pytest.raises(ValueError, match="channels to be a multiple of 4, got 6"):
        group_by_parity(6)


def test_gradients_of_one_small_image_are_exact() -> None:
    # One image: reshaping then gives views of the same numbers, which the engine writes to.
    torch.manual_seed(0)
    flow = multiscale([[AdditiveCoupling(4, subnet(2))], [AdditiveCoupling(8, subnet(2))]], 1).double()
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    for method in ("forward", "inverse", "forward_and_logdet"):
        expected, found = (gradients(flow, method, policy, x) for policy in ("stored", "reversible"))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-10)
