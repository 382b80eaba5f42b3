"""Scores per region against MONAI and against distances between all pairs of surface voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_confusion_matrix_metric, compute_dice, get_confusion_matrix
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from torch import Tensor

from src.tasks.segmentation_heads import region_masks
from src.tasks.segmentation_metrics import WORST_DISTANCE, dice, dice_where_present, hausdorff95, sensitivity
from tests.fake_segmentation import REGIONS, nested_case

EMPTY = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
FULL = ~EMPTY


def random_masks(density: float, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    prediction, truth = (torch.rand((2, batch, 3, 5, 6, 7), generator=generator) < density).unbind()
    # One prediction and one truth without a region, and one region that neither has.
    prediction[0, 0], truth[-1, 1], prediction[-1, 2], truth[-1, 2] = False, False, False, False
    return prediction, truth


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_dice_is_monais(density: float, batch: int) -> None:
    prediction, truth = random_masks(density, batch, seed=batch)
    expected = compute_dice(prediction.float(), truth.float(), include_background=True, ignore_empty=False)
    torch.testing.assert_close(dice(prediction, truth), expected.double(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_sensitivity_is_monais_where_there_is_a_truth(batch: int) -> None:
    prediction, truth = random_masks(0.3, batch, seed=batch)
    counts = get_confusion_matrix(prediction.float(), truth.float(), include_background=True)
    expected = compute_confusion_matrix_metric("sensitivity", counts).double()
    there = truth.flatten(start_dim=2).any(dim=2)
    assert there.any() and not there.all()
    torch.testing.assert_close(sensitivity(prediction, truth)[there], expected[there], atol=1e-7, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_perfect_prediction_scores_exactly_one_at_any_batch_size(batch: int) -> None:
    # The fifth case has no enhancing tumour.
    label = torch.stack([nested_case(seed, (17, 16, 13))[1] for seed in range(5 - batch, 5)])
    masks = region_masks(label, REGIONS)
    assert not masks[-1, 0].any()
    assert torch.equal(dice(masks, masks), torch.ones(batch, 3, dtype=torch.float64))
    assert torch.equal(sensitivity(masks, masks), torch.ones(batch, 3, dtype=torch.float64))
    assert torch.equal(hausdorff95(masks, masks), torch.zeros(batch, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, (1.0, 1.0, 0.0)),
        (FULL, EMPTY, (0.0, 0.0, WORST_DISTANCE)),
        (EMPTY, FULL, (0.0, 0.0, WORST_DISTANCE)),
        (FULL, FULL, (1.0, 1.0, 0.0)),
    ],
)
def test_empty_regions_score_the_best_or_the_worst(
    prediction: Tensor, truth: Tensor, expected: tuple[float, float, float]
) -> None:
    assert tuple(score(prediction, truth).item() for score in (dice, sensitivity, hausdorff95)) == expected


def test_dice_where_present_is_dice_but_for_empty_truths() -> None:
    prediction, truth = random_masks(0.3, 3, seed=0)
    there = truth.flatten(start_dim=2).any(dim=2)
    found = dice_where_present(prediction, truth)
    assert there.any() and torch.equal(found.isnan(), ~there)
    assert torch.equal(found[there], dice(prediction, truth)[there])


def test_the_worst_distance_is_the_challenges() -> None:
    assert pytest.approx(373.12866, abs=1e-5) == WORST_DISTANCE


def surface(mask: Tensor) -> np.ndarray:
    array = mask.numpy()
    return np.argwhere(array & ~binary_erosion(array))


def test_the_hausdorff_distance_is_that_of_all_pairs_of_surface_voxels() -> None:
    masks = [region_masks(nested_case(seed, (18, 16, 13))[1][None], REGIONS) for seed in (0, 1)]
    found = hausdorff95(*masks)
    for region in range(3):
        distances = cdist(*(surface(mask[0, region]) for mask in masks))
        expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
        assert found[0, region].item() == pytest.approx(expected, rel=1e-5)
    assert found.min() > 1


def test_a_single_voxel_is_as_far_as_it_is() -> None:
    first, second = EMPTY.clone(), EMPTY.clone()
    first[0, 0, 0, 0, 0], second[0, 0, 3, 2, 1] = True, True
    assert hausdorff95(first, second).item() == pytest.approx(math.sqrt(14), rel=1e-6)
