"""What is particular to couplings and all-in-one blocks: groups, clamps, starts, work in backward, refusals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, Inverse, InvertibleModule, OrthogonalMixing, Sequential, set_backprop
from src.invertible.layers.affine import CLAMPS, AffineCoupling, GlowCoupling, find_clamp
from src.invertible.layers.all_in_one import SCALES, AllInOneBlock, GlobalAffine
from src.invertible.layers.coupling import AdditiveCoupling, Coupling, TwoSidedCoupling
from src.invertible.layers.linear import Permutation
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.table.couplings import COUPLINGS
from tests.invertible.table.samples import dense, subnet


def constant(value: float) -> Callable[[int, int], nn.Module]:
    """Subnets that return one value everywhere."""

    def construct(dims_in: int, dims_out: int) -> nn.Module:
        layer = nn.Linear(dims_in, dims_out)
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
        return layer

    return construct


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("coupling", COUPLINGS.values())
def test_couplings_change_one_group_and_read_the_other(coupling: type[Coupling], flip: bool) -> None:
    layer = coupling(5, dense, split=2, flip=flip)
    x = torch.randn(3, 5)
    read, changed = slice(0, 2), slice(2, 5)
    if flip:
        read, changed = changed, read
    assert torch.equal(layer(x)[:, read], x[:, read])
    assert (layer(x)[:, changed] != x[:, changed]).all()
    jacobian = torch.autograd.functional.jacobian(lambda row: layer(row[None])[0], x[0])
    inside = jacobian[changed, changed]
    assert torch.equal(inside, inside.diagonal().diag())
    assert (jacobian[changed, read] != 0).all()


def test_two_sided_couplings_change_the_first_group_first() -> None:
    layer = TwoSidedCoupling(AdditiveCoupling, 4, dense)
    x1, x2 = torch.randn(3, 4).chunk(2, dim=1)
    y1 = x1 + layer.get_submodule("first.subnet")(x2)
    y2 = x2 + layer.get_submodule("second.subnet")(y1)
    torch.testing.assert_close(layer(torch.cat((x1, x2), dim=1)), torch.cat((y1, y2), dim=1))


@pytest.mark.parametrize(
    ("channels", "split", "sizes"),
    [(5, None, [3, 2]), (5, 4, [4, 1]), (8, 0.25, [2, 6]), (5, 0.7, [4, 1]), (2, None, [1, 1])],
)
def test_split_by_number_and_by_fraction(channels: int, split: float | None, sizes: list[int]) -> None:
    assert AffineCoupling(channels, dense, split=split).sizes == sizes


@pytest.mark.parametrize("split", [0, 5, 0.01, 1.0, -1])
def test_split_that_leaves_a_group_empty_is_refused(split: float) -> None:
    with pytest.raises(ValueError, match=f"split between 1 and channels - 1, got split={split}, channels=5"):
        GlowCoupling(5, dense, split=split)


@pytest.mark.parametrize("name", [name for name in CLAMPS if name != "none"])
def test_clamps_bound_the_scale_and_have_their_slope_at_zero(name: str) -> None:
    slope = {"atan": 0.636, "tanh": 1.0, "sigmoid": 0.5}[name]
    u = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(find_clamp(name)(u), u)
    assert gradient.item() == pytest.approx(slope, abs=1e-12)
    x = torch.ones(1, 4, dtype=torch.float64)
    for sign in (-1, 1):
        layer = AffineCoupling(4, constant(sign * 1e9), clamp=1.5, clamp_activation=name.upper()).double()
        _, logdet = layer.forward_and_logdet(x)
        assert logdet.item() == pytest.approx(sign * 2 * 1.5, rel=2e-3)  # two channels
        assert abs(logdet.item()) <= 2 * 1.5


def test_affine_coupling_by_hand() -> None:
    layer = AffineCoupling(2, constant(0.5), clamp=3.0, clamp_activation="none").double()
    y, logdet = layer.forward_and_logdet(torch.tensor([[7.0, 2.0]], dtype=torch.float64))
    scale = math.exp(3.0 * 0.5)
    torch.testing.assert_close(y, torch.tensor([[7.0, scale * 2.0 + 0.5]], dtype=torch.float64))
    assert logdet.item() == pytest.approx(1.5)


def test_volume_preserving_coupling_scales_but_keeps_the_volume() -> None:
    torch.manual_seed(0)
    layer = AffineCoupling(6, subnet(2), volume_preserving=True).double()
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    read, _ = layer.groups(x)
    s, _ = layer.log_scale_and_shift(read, None)
    assert s.std() > 0.05
    assert layer.forward_and_logdet(x)[1].abs().max() < 1e-12


@pytest.mark.parametrize("method", ["forward", "inverse", "forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("coupling", COUPLINGS.values())
@pytest.mark.parametrize("policy", ["stored", "reversible"])
def test_each_subnet_is_evaluated_once_in_forward_and_once_in_backward(
    policy: str, coupling: Callable[..., Coupling], method: str
) -> None:
    net = Sequential(
        TwoSidedCoupling(coupling, 4, dense), TwoSidedCoupling(coupling, 4, dense).inverted(), coupling(4, dense)
    )
    set_backprop(net, policy)
    subnets = [part for part in net.modules() if isinstance(part, nn.Sequential)]
    assert len(subnets) == (10 if coupling is AffineCoupling else 5)
    calls: list[nn.Module] = []
    for part in subnets:
        part.register_forward_hook(lambda module, *_: calls.append(module))
    result = getattr(net, method)(torch.randn(3, 4))
    assert len(calls) == len(subnets)
    outputs = result if isinstance(result, tuple) else (result,)
    torch.stack([part.sum() for part in outputs]).sum().backward()
    in_backward = calls[len(subnets) :]
    assert len(in_backward) == (len(subnets) if policy == "reversible" else 0)
    assert set(in_backward) == (set(subnets) if policy == "reversible" else set())


def test_saved_bytes_of_a_flow_do_not_grow_with_depth() -> None:
    x = torch.randn(2, 4, 16, 16).requires_grad_()
    saved = {}
    for depth in (2, 8):
        net = Sequential(*(AllInOneBlock(4, subnet(2), permute_soft=True) for _ in range(depth)))
        set_backprop(net, "reversible")
        saved[depth] = saved_bytes(net, x)
    assert saved[2] == saved[8]
    assert saved[8] <= 1.1 * x.numel() * x.element_size()


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("coupling", COUPLINGS.values())
def test_inverse_and_logdet_are_of_one_draw(coupling: Callable[..., Coupling], inverted: bool) -> None:
    torch.manual_seed(0)
    layer: InvertibleModule = Sequential(coupling(4, dropping), coupling(4, dropping).inverted()).double()
    layer = layer.inverted() if inverted else layer
    y = torch.randn(3, 4, dtype=torch.float64)
    torch.manual_seed(3)
    x, logdet = layer.inverse_and_logdet(y)
    for b in range(3):

        def same_draw(part: Tensor, b: int = b) -> Tensor:
            torch.manual_seed(3)
            return layer.inverse(torch.cat((y[:b], part, y[b + 1 :])))[b]

        jacobian = torch.autograd.functional.jacobian(same_draw, y[b : b + 1])
        expected = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        torch.testing.assert_close(logdet[b], expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(x[b], same_draw(y[b : b + 1]), rtol=0, atol=1e-12)


def dropping(dims_in: int, dims_out: int) -> nn.Module:
    """A subnet that draws at random."""
    return nn.Sequential(dense(dims_in, dims_out), nn.Dropout(0.4))


@pytest.mark.parametrize("method", ["forward_and_logdet", "inverse_and_logdet"])
@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
def test_dropout_in_affine_subnets_uses_one_mask(policy: str, method: str) -> None:
    torch.manual_seed(0)
    net = Sequential(TwoSidedCoupling(AffineCoupling, 4, dropping), GlowCoupling(4, dropping).inverted()).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    found = []
    for each in ("stored", policy):
        twin = copy.deepcopy(net)
        set_backprop(twin, each)
        torch.manual_seed(3)
        y, logdet = getattr(twin, method)(x)
        ((y**3).sum() + logdet.square().sum()).backward()
        found.append([p.grad for p in twin.parameters()])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("policy", POLICIES)
def test_batch_statistics_of_an_inverted_flow_move_once_a_step(policy: str) -> None:
    torch.manual_seed(0)
    net = Sequential(*(coupling(4, subnet(2, "batch")).inverted() for coupling in COUPLINGS.values()))
    set_backprop(net, policy)
    y, logdet = net.forward_and_logdet(torch.randn(2, 4, 5, 5))
    (y.square().sum() + logdet.sum()).backward()
    counts = [buffer.item() for name, buffer in net.named_buffers() if name.endswith("num_batches_tracked")]
    assert len(counts) == 8
    assert set(counts) == {1}


@pytest.mark.parametrize("coupling", COUPLINGS.values())
def test_state_stays_in_its_precision_and_invertible_under_autocast(coupling: Callable[..., Coupling]) -> None:
    net = Sequential(TwoSidedCoupling(coupling, 4, dense), AllInOneBlock(4, dense, permute_soft=True))
    x = torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y, logdet = net.forward_and_logdet(x)
        assert (y.dtype, logdet.dtype) == (torch.float32, torch.float32)
        assert (net.inverse(y) - x).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [0.05, 1.0, 7.5])
@pytest.mark.parametrize("activation", SCALES)
def test_global_affine_starts_at_its_scale(activation: str, scale: float) -> None:
    layer = GlobalAffine(3, activation.upper(), scale).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    y, logdet = layer.forward_and_logdet(x)
    torch.testing.assert_close(y, scale * x, rtol=1e-5, atol=1e-6)  # started in float32
    torch.testing.assert_close(logdet, torch.full((2,), 3 * 4 * math.log(scale)).double(), rtol=1e-5, atol=1e-5)


def test_learned_reflections_start_at_the_random_matrix_and_move_it() -> None:
    torch.manual_seed(0)
    block = AllInOneBlock(5, dense, learned_householder_permutation=2).double()
    permutation = block.get_submodule("permutation")
    assert isinstance(permutation, OrthogonalMixing)
    start = permutation.matrices()[0]
    torch.testing.assert_close(start.abs().round(), start.abs(), rtol=0, atol=1e-6)  # a permutation matrix
    with torch.no_grad():
        permutation.matrices.theta.add_(torch.randn_like(permutation.matrices.theta))
    assert (permutation.matrices()[0] - start).abs().max() > 0.1


def test_blocks_draw_different_permutations_and_keep_them_in_the_state_dict() -> None:
    torch.manual_seed(0)
    first, second = (AllInOneBlock(16, dense) for _ in range(2))
    assert isinstance(first.get_submodule("permutation"), Permutation)
    x = torch.randn(2, 16)
    second.coupling.load_state_dict(first.coupling.state_dict())  # type: ignore[union-attr]
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


def test_reverse_permutation_undoes_the_permutation_before_the_coupling() -> None:
    torch.manual_seed(0)
    block = AllInOneBlock(6, constant(0.0), reverse_permutation=True)
    x = torch.randn(2, 6)
    torch.testing.assert_close(block(x), x)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "clamp": (
        lambda: AffineCoupling(4, dense, clamp_activation="relu"),
        "clamp_activation to be one of atan, tanh, sigmoid, none or a function, got 'relu'",
    ),
    "condition": (
        lambda: AdditiveCoupling(4, dense, condition_channels=-1),
        "expected condition_channels >= 0, got -1",
    ),
    "channels": (lambda: AffineCoupling(4, dense)(torch.zeros(1, 5)), "expected 4 channels, got 5"),
    "scale": (
        lambda: AllInOneBlock(4, dense, global_affine_type="relu"),
        "activation to be one of sigmoid, softplus, exp, got 'relu'",
    ),
    "start": (
        lambda: AllInOneBlock(4, dense, global_affine_type="SIGMOID", global_affine_init=10.0),
        "global scale between 0 and 10 with 'sigmoid', got 10.0",
    ),
    "negative start": (lambda: GlobalAffine(4, "exp", 0.0), "global scale between 0 and inf with 'exp', got 0.0"),
    "global channels": (lambda: GlobalAffine(4)(torch.zeros(1, 5, 2)), "expected 4 channels, got 5"),
    "reflections": (
        lambda: AllInOneBlock(4, dense, learned_householder_permutation=-1),
        "expected learned_householder_permutation >= 0, got -1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("coupling", COUPLINGS.values())
def test_subnet_output_of_another_shape_is_refused_not_broadcast(coupling: Callable[..., Coupling]) -> None:
    class Pooled(nn.Module):
        """One value per channel, which would be broadcast over the voxels."""

        def __init__(self, dims_in: int, dims_out: int) -> None:
            super().__init__()
            self.conv = nn.Conv1d(dims_in, dims_out, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean(-1, keepdim=True)

    with pytest.raises(ValueError, match=r"subnet to return shape \(2, .*, 6\), got \(2, .*, 1\)"):
        coupling(4, Pooled)(torch.zeros(2, 4, 6))


def test_inverse_of_a_block_is_made_of_inverses() -> None:
    block = AllInOneBlock(4, dense, reverse_permutation=True)
    inverted = block.inverted()
    assert [isinstance(part, Inverse) for part in inverted] == [True, True, True, False]
    assert inverted[3] is block.get_submodule("permutation")
