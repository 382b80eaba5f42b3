"""Layers of one kind find their singular vectors together: the same vectors, from fewer operations."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from benchmarks.fake_values import FakeTensorMode, fake_values, make_fake
from benchmarks.host_waits import HostWaits
from benchmarks.launches import Launches
from src.invertible import SpectralNormalised, settle_together
from src.invertible.layers import settling, spectral_norm

KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(70, 90), (70,)),
    "linear-decomposed": (lambda: nn.Linear(6, 9), (6,)),
    "1d-circular": (lambda: nn.Conv1d(3, 4, 5, padding=2, padding_mode="circular"), (3, 30)),
    "2d": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 7, 6)),
    "2d-decomposed": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 4, 4)),
    "2d-grouped-strided": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, stride=2), (4, 6, 6)),
    "2d-reflected": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 8, 5)),
    "3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 4, 3, 5)),
}
MANY = patch.object(spectral_norm, "most_at_once", lambda *_: 100)  # as on a GPU


def layers(kind: str, number: int = 5) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(SpectralNormalised(KINDS[kind][0]().double(), 0.9) for _ in range(number))


def change(parts: nn.Module, step: int) -> None:
    """Weights of other sizes and directions; the searches end after different numbers of sweeps."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for i, weight in enumerate(parts.parameters()):
            weight.add_(0.2 * (i % 3) * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_norms_found_together_are_those_found_alone(kind: str) -> None:
    alone, together = layers(kind), layers(kind)
    settle_together(together)
    shape = KINDS[kind][1]
    for step in range(4):
        for parts in (alone, together):
            parts.train(step != 2)
            change(parts, step)
        with MANY:
            found = torch.stack([part.norm(shape) for part in together])  # type: ignore[operator]
        expected = torch.stack([part.norm(shape) for part in alone])  # type: ignore[operator]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def searches(parts: nn.ModuleList, shape: tuple[int, ...]) -> list[int]:
    """How many layers each search was for, while all give their norms."""
    numbers: list[int] = []
    real = settling.settle

    def noted(layer: nn.Module, weights: list[Tensor], *rest: object, **options: object) -> object:
        numbers.append(len(weights))
        return real(layer, weights, *rest, **options)  # type: ignore[arg-type]

    with MANY, patch.object(spectral_norm, "settle", noted):
        for part in parts:
            part.norm(shape)  # type: ignore[operator]
    return numbers


def test_only_changed_layers_are_searched_and_in_one_go() -> None:
    parts, shape = layers("2d"), KINDS["2d"][1]
    settle_together(parts)
    assert searches(parts, shape) == [1] * 5, "their shapes are not known before"
    assert searches(parts, shape) == []
    vectors = [part.get_extra_state()[shape][0] for part in parts]  # type: ignore[operator]
    with torch.no_grad():
        for part in (parts[1], parts[3], parts[4]):
            part.layer.weight.mul_(-1.5)  # type: ignore[operator, union-attr]
    assert searches(parts, shape) == [3]
    for i in (0, 2):
        assert torch.equal(parts[i].get_extra_state()[shape][0], vectors[i])  # type: ignore[operator]
    with torch.no_grad():
        parts[2].layer.weight.fill_(float("nan"))  # type: ignore[operator, union-attr]
        parts[0].layer.weight.mul_(2)  # type: ignore[operator, union-attr]
    with MANY:
        parts[0].norm(shape)  # type: ignore[operator]
        with pytest.raises(ValueError, match="expected finite weights"):
            parts[2].norm(shape)  # type: ignore[operator]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
def test_copies_work_with_each_other_and_not_with_the_originals(copied: Callable[[nn.Module], nn.ModuleList]) -> None:
    parts, shape = layers("2d"), KINDS["2d"][1]
    settle_together(parts)
    searches(parts, shape)
    others = copied(parts)
    change(others, 0)
    change(others, 1)
    before = [part.get_extra_state()[shape][0] for part in parts]  # type: ignore[operator]
    assert sum(searches(others, shape)) < 5 + 1 and max(searches(copied(others), shape), default=0) == 0
    assert all(torch.equal(part.get_extra_state()[shape][0], v) for part, v in zip(parts, before, strict=True))  # type: ignore[operator]


def test_memory_limits_how_many_search_together() -> None:
    layer = nn.Conv3d(8, 32, 3, padding=1, device="meta")
    assert settling.most_at_once(layer, (8, 128, 128, 128)) == 1
    assert settling.most_at_once(layer, (8, 4, 4, 4)) > 100
    assert settling.most_at_once(nn.Linear(8, 8), (8,)) == 1, "a CPU"


@pytest.mark.slow
def test_a_gpu_gets_as_many_operations_for_several_layers_as_for_one() -> None:
    one, alone, together = launches(1, False), launches(4, False), launches(4, True)
    assert alone >= 3.9 * one
    assert together < 1.5 * one


def launches(number: int, shared: bool) -> int:
    """Those of the norms after all weights have changed."""
    parts, shape = layers("2d", number).float(), KINDS["2d"][1]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(parts, mode)
    if shared:
        settle_together(parts)
    with fake_values(mode), Launches() as found, HostWaits():
        for part in parts:
            part.norm(shape)  # type: ignore[operator]
        old = {id(part._settled[shape][0]): part._settled[shape][0] for part in parts}  # type: ignore[index, operator]
        found.counts.clear()
        with patch.object(spectral_norm, "find", lambda known, _: next((s for s in known if id(s) not in old), None)):
            for part in parts:
                part.norm(shape)  # type: ignore[operator]
    return found.counts.total()
