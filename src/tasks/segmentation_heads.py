"""The meaning of the output channels of a segmentation network: its loss and its label map."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from src.tasks.segmentation_losses import dice_ce

Regions = Mapping[str, Sequence[int]]
# Called like MONAI's Dice losses with what the outputs mean: ``softmax`` and ``to_onehot_y`` without the background, or
# ``sigmoid``. Returns a loss of logits and classes (B, 1, *spatial), or of logits and masks.
MakeCriterion = Callable[..., nn.Module]


def region_masks(label: Tensor, regions: Regions) -> Tensor:
    """Return whether each voxel has a class of each region: (B, *spatial) to (B, regions, *spatial), boolean."""
    # One comparison per class: a tensor of classes would have to be copied to a GPU.
    masks = [
        functools.reduce(torch.logical_or, (label == number for number in classes)) for classes in regions.values()
    ]
    return torch.stack(masks, dim=1)


class Head(ABC):
    """The meaning of the output channels.

    Attributes:
        num_outputs: the number of channels.
        meaning: of one channel, for messages.
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

    ``mean_k (1 − (2 Σ_v p_k t_k + ε) / (Σ_v p_k² + Σ_v t_k² + ε)) − mean_v log p_{t_v}`` with ε = 1e-5 (Milletari et
    al. 2016, for the squares). Dice leaves out the background, whose score says little; the cross entropy includes it.

    Args:
        num_classes: background included.
        regions: unused here.
    """

    def __init__(self, num_classes: int, regions: Regions, criterion: MakeCriterion = dice_ce) -> None:
        self.num_outputs = num_classes
        self.meaning = "class, background included"
        self._loss = criterion(include_background=False, to_onehot_y=True, softmax=True)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        return self._loss(logits, label[:, None])

    def label_map(self, logits: Tensor) -> Tensor:
        """Return the likeliest class."""
        return logits.argmax(dim=1)


class SigmoidRegions(Head):
    """One output per region, a sigmoid of each: Dice loss plus binary cross entropy, both averaged over the regions.

    The Dice loss is that of `SoftmaxClasses`. Two regions are nested, as in BraTS (ET ⊂ TC ⊂ WT), or have no class in
    common. Each has one class of its own, which no smaller region inside it has. The label map is painted with these
    classes from the largest to the smallest region where the sigmoid exceeds 1/2: WT as ED, over it TC as NCR, over it
    ET as ET.

    Args:
        num_classes: background included.
        regions: classes of each region, in the order of the outputs.

    Raises:
        ValueError: for other regions.
    """

    def __init__(self, num_classes: int, regions: Regions, criterion: MakeCriterion = dice_ce) -> None:
        self.num_outputs = len(regions)
        self.meaning = f"region ({', '.join(regions)})"
        self.regions = dict(regions)
        self.paints = _paints(num_classes, regions)
        self._loss = criterion(sigmoid=True)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        return self._loss(logits, region_masks(label, self.regions).to(logits.dtype))

    def label_map(self, logits: Tensor) -> Tensor:
        """Return the own class of the smallest region that each voxel is in."""
        label = torch.zeros_like(logits[:, 0], dtype=torch.long)
        for output, paint in self.paints:
            label[logits[:, output] > 0] = paint
        return label


def _paints(num_classes: int, regions: Regions) -> list[tuple[int, int]]:
    """Return (output, class to paint), from the largest region to the smallest."""
    sets = [frozenset(classes) for classes in regions.values()]
    own = [region.difference(*(other for other in sets if other < region)) for region in sets]
    apart = all(a < b or b < a or not a & b for a, b in combinations(sets, 2))
    if not apart or any(len(classes) != 1 for classes in own) or not set().union(*sets) <= set(range(1, num_classes)):
        raise ValueError(
            f"expected nested or disjoint regions of classes 1 to {num_classes - 1} for task.outputs=regions, "
            f"each with one class that its smaller regions lack, got {dict(regions)}"
        )
    order = sorted(range(len(sets)), key=lambda output: -len(sets[output]))
    return [(output, next(iter(own[output]))) for output in order]


HEADS: dict[str, Callable[[int, Regions, MakeCriterion], Head]] = {
    "classes": SoftmaxClasses,
    "regions": SigmoidRegions,
}
