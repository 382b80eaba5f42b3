"""Losses and label maps against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from src.tasks.segmentation_heads import HEADS, SigmoidRegions, SoftmaxClasses, region_masks
from tests.fake_segmentation import REGIONS, nested_case

EPSILON = 1e-5


def labels(batch: int = 2) -> Tensor:
    return torch.stack([nested_case(seed, (9, 8, 7))[1] for seed in range(3, 3 + batch)])


def random_logits(outputs: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn((batch, outputs, 9, 8, 7), generator=generator, dtype=torch.float64)


def soft_dice_loss(p: Tensor, t: Tensor) -> Tensor:
    dims = (2, 3, 4)
    return (1 - (2 * (p * t).sum(dims) + EPSILON) / (p.square().sum(dims) + t.sum(dims) + EPSILON)).mean()


def test_regions_are_unions_of_classes() -> None:
    masks = region_masks(torch.arange(4)[None], REGIONS)
    assert masks.int().tolist() == [[[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 0, 1]]]


def test_softmax_loss_is_dice_without_background_plus_cross_entropy() -> None:
    logits, label = random_logits(4), labels()
    p = logits.softmax(dim=1)
    t = torch.stack([label == k for k in range(4)], dim=1).double()
    expected = soft_dice_loss(p[:, 1:], t[:, 1:]) - p.log().mul(t).sum(dim=1).mean()
    torch.testing.assert_close(SoftmaxClasses(4, REGIONS).loss(logits, label), expected)


def test_sigmoid_loss_is_dice_plus_binary_cross_entropy_of_the_regions() -> None:
    logits, label = random_logits(3), labels()
    p = logits.sigmoid()
    t = torch.stack([label == 3, label > 0, (label == 1) | (label == 3)], dim=1).double()
    expected = soft_dice_loss(p, t) - (t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(SigmoidRegions(4, REGIONS).loss(logits, label), expected)


@pytest.mark.parametrize("outputs", HEADS)
def test_the_loss_of_a_batch_is_the_mean_of_its_cases(outputs: str) -> None:
    head = HEADS[outputs](4, REGIONS)
    logits, label = random_logits(head.num_outputs, batch=3), labels(3)
    cases = [head.loss(*case) for case in zip(logits.split(1), label.split(1), strict=True)]
    torch.testing.assert_close(head.loss(logits, label), torch.stack(cases).mean())


@pytest.mark.parametrize("outputs", HEADS)
def test_sure_and_right_outputs_cost_nothing_and_give_the_label_back(outputs: str) -> None:
    head = HEADS[outputs](4, REGIONS)
    label = labels()
    regions = {str(k): (k,) for k in range(4)} if outputs == "classes" else REGIONS
    logits = 200.0 * region_masks(label, regions) - 100
    assert torch.equal(head.label_map(logits), label)
    assert 0 <= head.loss(logits, label) < 1e-6


@pytest.mark.parametrize(
    ("et", "wt", "tc", "expected"),
    [
        (0, 0, 0, 0),
        (0, 1, 0, 2),
        (0, 1, 1, 1),
        (1, 1, 1, 3),
        # Outputs that are not nested: the smaller region wins, and is part of the larger ones by that.
        (0, 0, 1, 1),
        (1, 0, 0, 3),
        (1, 1, 0, 3),
    ],
)
def test_regions_are_painted_from_the_largest_to_the_smallest(et: int, wt: int, tc: int, expected: int) -> None:
    logits = torch.tensor([et, wt, tc]).float().sub(0.5)[None, :, None, None, None]
    assert SigmoidRegions(4, REGIONS).label_map(logits).tolist() == [[[[expected]]]]


def test_the_order_of_the_outputs_is_that_of_the_regions() -> None:
    reordered = {name: REGIONS[name] for name in ("WT", "TC", "ET")}
    logits = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None, None]
    assert SigmoidRegions(4, reordered).label_map(logits).item() == 2
    assert SigmoidRegions(4, REGIONS).label_map(logits).item() == 3


def test_a_region_beside_the_others_is_painted_too() -> None:
    head = SigmoidRegions(5, {**REGIONS, "RC": (4,)})
    label = torch.arange(5)[None, :, None, None]
    logits = 2.0 * region_masks(label, head.regions) - 1
    assert torch.equal(head.label_map(logits), label)


@pytest.mark.parametrize(
    "regions",
    [
        {"a": (1, 2), "b": (2, 3)},
        {"a": (1, 2, 3), "b": (1,)},
        {"a": (1, 2), "b": (1, 2)},
        {"a": (0, 1), "b": (1,)},
        {"a": (4, 1), "b": (1,)},
    ],
)
def test_regions_that_no_label_map_follows_from_are_refused(regions: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected nested or disjoint regions of classes 1 to 3"):
        SigmoidRegions(4, regions)
