"""How well predicted regions cover the true ones, case by case, with BraTS's conventions for empty regions.

A case without a region (a glioma without enhancing tumour, say) has no overlap to measure. As in the challenge's own
evaluation (CBICA's, and its successor in GaNDLF and BraTS-2023-Metrics), nothing predicted scores the best value
there, Dice 1, sensitivity 1, Hausdorff distance 0, and any predicted voxel the worst, Dice 0, sensitivity 0, Hausdorff
distance 373.13 mm. A region that is there and not predicted at all scores the worst as well.
"""

from __future__ import annotations

import math

import torch
from monai.metrics import compute_hausdorff_distance
from torch import Tensor

# The diagonal of BraTS's grid of 240 × 240 × 155 voxels of 1 mm: no two voxels lie further apart.
WORST_DISTANCE = math.sqrt(240**2 + 240**2 + 155**2)


def dice(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return ``2 |P ∩ T| / (|P| + |T|)`` of each mask, from exact counts.

    Args:
        prediction: boolean, shape (B, regions, *spatial).
        truth: the same.

    Returns:
        shape (B, regions), double precision; 1 where both are empty.
    """
    both, total = _count(prediction & truth), _count(prediction) + _count(truth)
    return torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0)


def sensitivity(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return ``|P ∩ T| / |T|`` of each mask, from exact counts.

    Args:
        prediction: boolean, shape (B, regions, *spatial).
        truth: the same.

    Returns:
        shape (B, regions), double precision; where T is empty, 1 for an empty P and else 0.
    """
    both, true = _count(prediction & truth), _count(truth)
    return torch.where(true > 0, both / true.clamp(min=1), (_count(prediction) == 0).double())


def hausdorff95(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the larger of the 95th percentiles of the distances from one surface to the other, of each mask.

    Args:
        prediction: boolean, shape (B, regions, *spatial).
        truth: the same.

    Returns:
        shape (B, regions), in voxels (BraTS's are 1 mm in each direction): 0 where both are empty, 373.13 where only
        one is.
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
    """Voxels of each mask: (B, regions, *spatial) to (B, regions), in double precision, exact."""
    return masks.flatten(start_dim=2).sum(dim=2).double()
