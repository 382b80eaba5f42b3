"""The tutorial "Invertible channel mixing": the colours of a photograph, mixed by an orthogonal matrix and back."""

import torch
from skimage import data
from torch import Tensor

from src.invertible import OrthogonalMixing
from src.utils.random_stream import own_stream

METHODS = ("exp", "cayley", "householder")


@torch.no_grad()
def mixed_and_back(method: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return a photograph (1, 3, H, W), the mixture of its channels, and the inverse of that, in single precision.

    The parameters θ of the orthogonal matrix A(θ) are drawn from a standard normal distribution, always the same.

    Args:
        method: how the matrix follows from θ: ``exp``, ``cayley`` or ``householder``.
    """
    image = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    mixing = OrthogonalMixing(3, method=method)
    with own_stream(0, image.device):
        for parameter in mixing.parameters():
            parameter.normal_()
    mixed = mixing(image)
    return image, mixed, mixing.inverse(mixed)


def unmixing_mse(method: str) -> Tensor:
    """Return the mean squared difference between the photograph and what comes back."""
    image, _, back = mixed_and_back(method)
    return (back - image).square().mean()
