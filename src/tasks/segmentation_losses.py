"""Losses of segmentation networks that MONAI does not have in this form."""

from typing import Any

from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F


class DiceBCE(nn.Module):
    """Dice loss plus binary cross entropy of sigmoids, both averaged over the channels.

    MONAI's DiceCELoss takes the cross entropy of a softmax wherever there are several channels.

    Args:
        lambda_dice, lambda_ce: weights of the two terms.
        options: of MONAI's DiceLoss.
    """

    def __init__(self, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **options: Any) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, **options)
        self.lambda_dice, self.lambda_ce = lambda_dice, lambda_ce

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(logits, target)
        return self.lambda_dice * self.dice(logits, target) + self.lambda_ce * entropy


def dice_ce(sigmoid: bool = False, squared_pred: bool = True, **options: Any) -> nn.Module:
    """Return Dice loss plus the cross entropy of the same activation, `DiceBCE` or MONAI's DiceCELoss.

    Args:
        sigmoid: whether each channel is a region of its own; else ``options`` has ``softmax=True``.
        squared_pred: whether the Dice loss has squares in its denominator (Milletari et al. 2016).
        options: of the loss.
    """
    return (DiceBCE if sigmoid else DiceCELoss)(squared_pred=squared_pred, **options)
