"""Equal outputs and log-determinants as FrEIA's blocks, with copied weights: of release 0.2, or of the main branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.invertible import InvertibleModule
from src.invertible.layers.affine import AffineCoupling, GlowCoupling
from src.invertible.layers.all_in_one import AllInOneBlock
from src.invertible.layers.coupling import AdditiveCoupling, TwoSidedCoupling
from src.invertible.layers.linear import Permutation
from tests.invertible.table.samples import dense, subnet

freia = pytest.importorskip("FrEIA.modules")
pytestmark = pytest.mark.usefixtures("double_precision")

# Their 2/π is 0.636 and their matrices are made in float32: they agree to that, not to float64.
TOLERANCE = 1e-6
CHANNELS, CONDITION_CHANNELS = 5, 3
SPATIAL: dict[str, tuple[int, ...]] = {"vector": (), "2d": (4, 3), "3d": (2, 3, 2)}
# The main branch has changed its all-in-one block: ``c tanh(a/c)`` instead of ``c tanh(a)``, and an order of channels
# instead of a permutation matrix. It fails for reflections without `permute_soft`.
IS_MAIN_BRANCH = hasattr(freia, "RationalQuadraticSpline")
# Ours, theirs, and their names of our subnets.
COUPLINGS: dict[str, tuple[Any, str, dict[str, str]]] = {
    "nice": (AdditiveCoupling, "NICECouplingBlock", {"first.subnet": "F", "second.subnet": "G"}),
    "rnvp": (
        AffineCoupling,
        "RNVPCouplingBlock",
        {
            "first.subnet_s": "subnet_s2",
            "first.subnet_t": "subnet_t2",
            "second.subnet_s": "subnet_s1",
            "second.subnet_t": "subnet_t1",
        },
    ),
    "glow": (GlowCoupling, "GLOWCouplingBlock", {"first.subnet": "subnet2", "second.subnet": "subnet1"}),
}
CLAMPS: dict[str, dict[str, Any]] = {
    "default": {},
    "atan": {"clamp": 1.3, "clamp_activation": "ATAN"},
    "tanh": {"clamp": 1.3, "clamp_activation": "TANH"},
    "sigmoid": {"clamp": 1.3, "clamp_activation": "SIGMOID"},
    "function": {"clamp": 0.7, "clamp_activation": torch.erf},
}
BLOCKS: dict[str, dict[str, Any]] = {
    "default": {},
    "clamp": {"affine_clamping": 0.8},
    "sigmoid": {"global_affine_type": "SIGMOID", "global_affine_init": 0.7},
    "softplus": {"global_affine_type": "SOFTPLUS", "global_affine_init": 0.7},
    "exp": {"global_affine_type": "EXP", "global_affine_init": 0.7},
    "gin": {"gin_block": True},
    "soft": {"permute_soft": True},
    "householder": {"learned_householder_permutation": 3},
    "soft-householder": {"permute_soft": True, "learned_householder_permutation": 2},
    "reverse": {"reverse_permutation": True},
    "reverse-soft-gin": {"reverse_permutation": True, "permute_soft": True, "gin_block": True},
    "reverse-householder": {"reverse_permutation": True, "learned_householder_permutation": 2},
}


def constructor(spatial: tuple[int, ...]) -> Callable[[int, int], nn.Module]:
    return subnet(len(spatial)) if spatial else dense


def dims(spatial: tuple[int, ...], conditional: bool) -> dict[str, Any]:
    """FrEIA's arguments for the shapes."""
    return {"dims_in": [(CHANNELS, *spatial)], "dims_c": [(CONDITION_CHANNELS, *spatial)] if conditional else []}


def assert_equal(ours: InvertibleModule, theirs: nn.Module, spatial: tuple[int, ...], conditional: bool) -> None:
    """Outputs and log-determinants of both directions."""
    x = torch.randn(2, CHANNELS, *spatial)
    condition = torch.randn(2, CONDITION_CHANNELS, *spatial) if conditional else None
    conditions = [condition] if conditional else []
    for module, rev in ((ours, False), (ours.inverted(), True)):
        y, logdet = module.forward_and_logdet(x) if condition is None else module.forward_and_logdet(x, condition)
        (expected,), expected_logdet = theirs([x], c=conditions, rev=rev)
        torch.testing.assert_close(y, expected, rtol=0, atol=TOLERANCE)
        expected_logdet = torch.as_tensor(expected_logdet).expand(2)  # volume-preserving blocks give a number
        torch.testing.assert_close(logdet, expected_logdet, rtol=0, atol=TOLERANCE)
        assert not torch.allclose(y, x, atol=1e-2)


# Every clamp at the default split, every split at the default clamp; NICE has no clamp.
CASES = [(name, "default", split) for name in COUPLINGS for split in (0.5, 1, 4)]
CASES += [(name, clamp, 0.5) for name in ("rnvp", "glow") for clamp in CLAMPS if clamp != "default"]


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("size", SPATIAL)
@pytest.mark.parametrize(("name", "clamp", "split"), CASES)
def test_coupling_blocks(name: str, clamp: str, size: str, split: float, conditional: bool) -> None:
    coupling, their_name, subnets = COUPLINGS[name]
    spatial, options = SPATIAL[size], CLAMPS[clamp]
    ours = TwoSidedCoupling(
        coupling,
        CHANNELS,
        constructor(spatial),
        split=split,
        condition_channels=CONDITION_CHANNELS if conditional else 0,
        **options,
    )
    theirs = getattr(freia, their_name)(
        **dims(spatial, conditional), subnet_constructor=constructor(spatial), split_len=split, **options
    )
    for our_subnet, their_subnet in subnets.items():
        ours.get_submodule(our_subnet).load_state_dict(theirs.get_submodule(their_subnet).state_dict())
    assert_equal(ours, theirs, spatial, conditional)


@pytest.mark.parametrize("channels", [3, 4, 5, 7, 9])
def test_their_default_split_is_a_fraction_of_ours(channels: int) -> None:
    theirs = freia.NICECouplingBlock(dims_in=[(channels,)], subnet_constructor=dense)
    ours = TwoSidedCoupling(AdditiveCoupling, channels, dense, split=0.5)
    assert ours.first.sizes == [theirs.split_len1, theirs.split_len2]
    assert TwoSidedCoupling(AdditiveCoupling, channels, dense).first.sizes[0] == (channels + 1) // 2


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("clamp", CLAMPS)
def test_one_sided_coupling(clamp: str, conditional: bool) -> None:
    spatial, options = SPATIAL["2d"], CLAMPS[clamp]
    condition_channels = CONDITION_CHANNELS if conditional else 0
    ours = GlowCoupling(CHANNELS, constructor(spatial), split=2, condition_channels=condition_channels, **options)
    theirs = freia.AffineCouplingOneSided(
        **dims(spatial, conditional), subnet_constructor=constructor(spatial), split_len=2, **options
    )
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, CHANNELS, *spatial)
    condition = torch.randn(2, CONDITION_CHANNELS, *spatial) if conditional else None
    y, logdet = ours.forward_and_logdet(x, condition)
    (expected,), expected_logdet = theirs([x], c=[condition] if conditional else [])
    torch.testing.assert_close(y, expected, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(logdet, expected_logdet, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("size", SPATIAL)
@pytest.mark.parametrize("name", BLOCKS)
def test_all_in_one_block(name: str, size: str, conditional: bool) -> None:
    spatial, options = SPATIAL[size], BLOCKS[name]
    condition_channels = CONDITION_CHANNELS if conditional else 0
    clamp: dict[str, Any] = {}
    if IS_MAIN_BRANCH:
        if "householder" in name and "soft" not in name:
            pytest.skip("FrEIA's main branch fails for reflections without permute_soft")
        c = options.get("affine_clamping", 2.0)
        clamp = {"clamp_activation": lambda u: torch.tanh(u / c)}
    ours = AllInOneBlock(CHANNELS, constructor(spatial), condition_channels=condition_channels, **options, **clamp)
    theirs = freia.AllInOneBlock(
        **dims(spatial, conditional), subnet_constructor=constructor(spatial), **options
    ).double()
    if not options.get("gin_block"):  # the same start, before the weights are copied
        torch.testing.assert_close(ours.scaling.scale, theirs.global_scale.flatten(), rtol=0, atol=1e-12)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    copy_block(ours, theirs)
    assert_equal(ours, theirs, spatial, conditional)


@torch.no_grad()
def copy_block(ours: Any, theirs: Any) -> None:
    """Weights of their AllInOneBlock into ours."""
    ours.coupling.subnet.load_state_dict(theirs.subnet.state_dict())
    ours.scaling.offset.copy_(theirs.global_offset.flatten())
    if ours.scaling.activation is not None:
        ours.scaling.scale.copy_(theirs.global_scale.flatten())
    permutation: Tensor = theirs.w_0 if theirs.householder else theirs.w_perm
    if isinstance(ours.permutation, Permutation):
        is_order = permutation.numel() == CHANNELS
        ours.permutation.order.copy_(permutation if is_order else permutation.squeeze().argmax(1))
        return
    matrix = permutation.reshape(CHANNELS, CHANNELS)
    ours.permutation.matrices.start.copy_(matrix)
    if theirs.householder:
        # Their reflections stand to the right of the fixed matrix, ours to the left: W H(v) = H(W v) W.
        ours.permutation.matrices.theta.copy_((theirs.vk_householder @ matrix.mT)[None])
