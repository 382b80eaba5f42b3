"""Losses of image-to-image networks beside torch's."""

import torch
from torch import Tensor, nn

from src.tasks.image_quality import ssim
from src.utils.errors import check_range


class SSIMMix(nn.Module):
    """``(1 − w) base(output, target) + w (1 − SSIM)``, averaged over the batch (Zhao et al., 2017).

    Args:
        base: called with output and target, (B, C, *spatial) each; returns their mean loss.
        weight: w, in [0, 1].
        data_range: range of the true intensities, for SSIM.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, base: nn.Module, weight: float, data_range: float = 1.0) -> None:
        super().__init__()
        check_range(0, 1, **{"task.criterion.weight": weight})
        self.base = base
        self.weight = weight
        self.data_range = data_range

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        # The squares in SSIM need single precision.
        with torch.autocast(output.device.type, enabled=False):
            dissimilarity = 1 - ssim(output.float(), target.float(), self.data_range).mean()
        return (1 - self.weight) * self.base(output, target) + self.weight * dissimilarity
