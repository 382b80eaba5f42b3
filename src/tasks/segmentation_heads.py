"""What the output channels of a segmentation network stand for: its loss, and the label map that it comes to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor
from torch.nn import functional as F

Regions = Mapping[str, Sequence[int]]


def region_masks(label: Tensor, regions: Regions) -> Tensor:
    """Return for each region which voxels have one of its classes: (B, *spatial) to (B, regions, *spatial), boolean."""
    masks = [torch.isin(label, torch.tensor(list(classes), device=label.device)) for classes in regions.values()]
    return torch.stack(masks, dim=1)


class Head(ABC):
    """The meaning of the output channels.

    Attributes:
        num_outputs: how many channels there have to be.
        meaning: one of what they are, for messages.
    """

    num_outputs: int
    meaning: str

    @abstractmethod
    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss of logits (B, outputs, *spatial) for the classes ``label`` (B, *spatial)."""

    @abstractmethod
    def label_map(self, logits: Tensor) -> Tensor:
        """Return one class per voxel: (B, outputs, *spatial) to (B, *spatial)."""


class SoftmaxClasses(Head):
    """One output per class, the softmax of them as p: Dice loss plus cross entropy.

    ``mean_k (1 − (2 Σ_v p_k t_k + ε) / (Σ_v p_k + Σ_v t_k + ε)) − mean_v log p_{t_v}`` with ε = 1e-5. Dice leaves the
    background out (Isensee et al. 2018), whose score says next to nothing; the cross entropy has it.

    Args:
        num_classes: background included.
        regions: not needed here.
    """

    def __init__(self, num_classes: int, regions: Regions) -> None:
        self.num_outputs = num_classes
        self.meaning = "class, background included"
        self._loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss."""
        return self._loss(logits, label[:, None])

    def label_map(self, logits: Tensor) -> Tensor:
        """Return the likeliest class."""
        return logits.argmax(dim=1)


class SigmoidRegions(Head):
    """One output per region, a sigmoid of each: Dice loss plus binary cross entropy, both averaged over the regions.

    The regions are nested, as BraTS's ET ⊂ TC ⊂ WT, and each has one class that the next smaller one has not. The
    label map is painted with these from the largest to the smallest region, each where its sigmoid exceeds 1/2:
    WT as ED, over it TC as NCR, over it ET as ET.

    Args:
        num_classes: background included.
        regions: classes of each region; the order is that of the outputs.

    Raises:
        ValueError: unless the regions are nested so.
    """

    def __init__(self, num_classes: int, regions: Regions) -> None:
        self.num_outputs = len(regions)
        self.meaning = f"region ({', '.join(regions)})"
        self.regions = dict(regions)
        self.paints = _paints(num_classes, regions)
        self._dice = DiceLoss(sigmoid=True)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss."""
        target = region_masks(label, self.regions).to(logits.dtype)
        return self._dice(logits, target) + F.binary_cross_entropy_with_logits(logits, target)

    def label_map(self, logits: Tensor) -> Tensor:
        """Return the class of the smallest region that each voxel is in."""
        label = torch.zeros_like(logits[:, 0], dtype=torch.long)
        for output, paint in self.paints:
            label[logits[:, output] > 0] = paint
        return label


def _paints(num_classes: int, regions: Regions) -> list[tuple[int, int]]:
    """Return (output, class to paint) from the largest region to the smallest."""
    ordered = sorted(enumerate(set(classes) for classes in regions.values()), key=lambda item: -len(item[1]))
    smaller = [classes for _, classes in ordered[1:]] + [set()]
    paints = []
    for (output, classes), inner in zip(ordered, smaller, strict=True):
        if not inner < classes or len(classes - inner) != 1 or not classes <= set(range(1, num_classes)):
            raise ValueError(
                f"expected nested regions of classes 1 to {num_classes - 1}, each with one class more than the next "
                f"smaller one, for task.loss=sigmoid_regions, got {dict(regions)}"
            )
        paints.append((output, (classes - inner).pop()))
    return paints


HEADS: dict[str, type[SoftmaxClasses] | type[SigmoidRegions]] = {
    "dice_ce": SoftmaxClasses,
    "sigmoid_regions": SigmoidRegions,
}
