"""The overlap and distance of predicted and true regions per case, with BraTS's conventions for empty regions.

If a case lacks a region (for example, a glioma without enhancing tumour), there is no overlap to measure. The
challenge's own evaluation (CBICA's, and its successors in GaNDLF and BraTS-2023-Metrics) then gives an empty prediction
the best scores: Dice 1, sensitivity 1, Hausdorff distance 0. Any predicted voxel gets the worst scores: Dice 0,
sensitivity 0, Hausdorff distance 373.13 mm. So does a missing prediction of a region that exists.

Masks are boolean, of shape (B, regions, *spatial); scores are in double precision, of shape (B, regions).
"""

import math

import torch
from monai.metrics import compute_hausdorff_distance
from torch import Tensor

# The diagonal of BraTS's grid of 240 × 240 × 155 voxels of 1 mm: the largest possible distance.
WORST_DISTANCE = math.sqrt(240**2 + 240**2 + 155**2)


def dice(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return ``2 |P ∩ T| / (|P| + |T|)`` of each mask, from exact counts; 1 where both are empty."""
    both, total = _count(prediction & truth), _count(prediction) + _count(truth)
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)


def dice_where_present(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return `dice` of each mask; NaN where the truth is empty, so that such cases can be left out of a mean."""
    return torch.where(_count(truth) > 0, dice(prediction, truth), torch.nan)


def sensitivity(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return ``|P ∩ T| / |T|`` of each mask, from exact counts; where T is empty, 1 for an empty P and else 0."""
    both, true = _count(prediction & truth), _count(truth)
    return torch.where(true > 0, both / true.clamp(min=1), (_count(prediction) == 0).double())


def hausdorff95(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the larger 95th percentile of the surface distances in both directions, the 95 % Hausdorff distance.

    It is in voxels (of 1 mm in BraTS): 0 where both masks are empty, 373.13 where only one is.
    """
    distances = torch.zeros(prediction.shape[:2], dtype=torch.float64, device=prediction.device)
    for case, region in torch.cartesian_prod(*(torch.arange(n) for n in distances.shape)).tolist():
        masks = prediction[case, region][None, None], truth[case, region][None, None]
        found = [bool(mask.any()) for mask in masks]
        if all(found):
            distances[case, region] = compute_hausdorff_distance(*masks, include_background=True, percentile=95).item()
        elif any(found):
            distances[case, region] = WORST_DISTANCE
    return distances


def _count(masks: Tensor) -> Tensor:
    """Return the exact number of voxels of each mask."""
    return masks.flatten(start_dim=2).sum(dim=2).double()
