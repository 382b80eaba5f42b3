"""Splines beside FrEIA's: with the values recorded from it, and with it where its main branch is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.invertible import TwoSidedCoupling
from src.invertible.interop import FreiaModule
from src.invertible.layers.elementwise import ConditionalElementwise, ElementwiseCoupling, LearnedElementwise
from src.invertible.layers.splines import LinearSpline, RationalQuadraticSpline
from tests.invertible.freia_splines import CHANNELS, DIRECTIONS, KINDS, OPTIONS, measured, record, recorded
from tests.invertible.table.samples import dense, subnet

try:
    import FrEIA.modules as Fm

    HAS_SPLINES = hasattr(Fm, "RationalQuadraticSpline")
except ImportError:
    HAS_SPLINES = False

needs_splines = pytest.mark.skipif(not HAS_SPLINES, reason="FrEIA's release 0.2 has no splines, its main branch has")
CASES = [(kind, name) for kind in KINDS for name in OPTIONS]
SPATIAL: dict[str, tuple[int, ...]] = {"vector": (), "image": (3, 4)}


def family(kind: str, options: dict[str, Any]) -> LinearSpline:
    names = {"bins": "num_bins", "default_domain": "domain", "domain_clamping": "domain_clamp"}
    ours = {names.get(name, name): value for name, value in options.items()}
    return (LinearSpline if kind == "LinearSpline" else RationalQuadraticSpline)(**ours, min_bin_fraction=0.0)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_splines_are_as_recorded(kind: str, name: str) -> None:
    expected = recorded()[f"{kind} {name}"]
    ours = LearnedElementwise((CHANNELS,), family(kind, OPTIONS[name])).double()
    with torch.no_grad():
        ours.theta.copy_(torch.tensor(expected["theta"], dtype=torch.float64))
    x = torch.tensor(expected["x"], dtype=torch.float64).reshape(-1, CHANNELS)
    for direction in DIRECTIONS:
        found = measured(getattr(ours, f"{direction}_and_logdet"), x, ours.theta)
        for key, value in expected[direction].items():
            assert found[key] == pytest.approx(value, rel=1e-10, abs=1e-10), (direction, key)


@needs_splines
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_record_is_what_freia_computes(kind: str, name: str) -> None:
    found, expected = record(kind, OPTIONS[name]), recorded()[f"{kind} {name}"]
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, list) else {k: pytest.approx(v) for k, v in value.items()})


@needs_splines
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("size", SPATIAL)
@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if not case[0].startswith("Elementwise")])
def test_couplings_with_their_weights(kind: str, name: str, size: str, conditional: bool) -> None:
    spatial = SPATIAL[size]
    constructor = subnet(2) if spatial else dense
    elementwise = family(kind, OPTIONS[name])

    def coupling(channels: int, subnet: Any, **options: Any) -> ElementwiseCoupling:
        return ElementwiseCoupling(channels, subnet, elementwise, **options)

    ours = TwoSidedCoupling(coupling, 5, constructor, split=2, condition_channels=3 * conditional).double()
    dims_c = [(3, *spatial)] * conditional
    theirs: Any = getattr(Fm, kind)([(5, *spatial)], dims_c, constructor, split_len=2, **OPTIONS[name]).double()
    for part, their_subnet in (("first", theirs.subnet1), ("second", theirs.subnet2)):
        ours.get_submodule(f"{part}.subnet").load_state_dict(their_subnet.state_dict())
    assert_equal(ours, FreiaModule(theirs), (5, *spatial), conditional)


@needs_splines
@pytest.mark.parametrize("size", SPATIAL)
@pytest.mark.parametrize("name", OPTIONS)
def test_conditional_splines_with_their_weights(name: str, size: str) -> None:
    spatial = SPATIAL[size]
    constructor = subnet(2) if spatial else dense
    elementwise = family("RationalQuadraticSpline", OPTIONS[name])
    ours = ConditionalElementwise(5, constructor, elementwise, condition_channels=3)
    options = {"subnet_constructor": constructor, **OPTIONS[name]}
    theirs: Any = Fm.ElementwiseRationalQuadraticSpline([(5, *spatial)], [(3, *spatial)], **options)
    ours.subnet.load_state_dict(theirs.subnet.state_dict())
    # Theirs casts the condition to float32.
    assert_equal(ours, FreiaModule(theirs), (5, *spatial), True, dtype=torch.float32, tolerance=1e-4)


def assert_equal(
    ours: Any,
    theirs: Any,
    shape: tuple[int, ...],
    conditional: bool,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-9,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, *shape, dtype=dtype)
    condition = torch.randn(2, 3, *shape[1:], dtype=dtype)
    for method in ("forward_and_logdet", "inverse_and_logdet"):
        found, expected = (getattr(net, method)(*((x, condition) if conditional else (x,))) for net in (ours, theirs))
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
        x = found[0].detach()
