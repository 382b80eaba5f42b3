"""Noise that turns integers into real numbers, and its density."""

import functools
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..invertible import Checkerboard, GlowCoupling, Inverse, Logit, Sequential, keep_input, to_blocks
from ..invertible.arguments import check_positive, check_spatial_dims
from ..invertible.log_determinants import constant_logdet, sum_per_sample
from .blocks import CONVOLUTIONS
from .coupling_nets import GlowNet
from .in_place import ReLU
from .multiscale import group_by_parity


class UniformDequantisation(nn.Module):
    """u uniform in [0, 1): ``log q(u|k) = 0``.

    Images (B, C, *spatial) to u of that shape and log q of shape (B,), in nats.

    Example:
        >>> u, log_q = UniformDequantisation()(torch.randint(256, (2, 1, 8, 8)).float())
        >>> u.shape, log_q
        (torch.Size([2, 1, 8, 8]), tensor([0., 0.]))
    """

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``u`` of the shape of the images (B, C, *spatial), and ``log q(u|k)`` of shape (B,)."""
        return torch.rand_like(images), constant_logdet(0.0, images)


class VariationalDequantisation(nn.Module):
    """``u = sigmoid(f(ε; k))`` with a flow f conditioned on the image k (Flow++; Ho et al., 2019, section 3.1).

    ``log q(u|k) = log p(ε) − log|det du/dε|``. f consists of affine couplings between the fields of a checkerboard,
    conditioned on the image and convolutional features of it. The paper's noise ε is Gaussian, here it is logistic: f
    starts as the identity, and the sigmoid of logistic noise is uniform, so it starts as `UniformDequantisation`.
    u lies in (0, 1). Single precision may round it to 0 or 1, which every preprocessing accepts; log q stays exact.

    Args:
        in_channels: number of channels C of the images (B, C, *spatial), whose spatial size must be even.
        num_bins: the images' integers are 0 to num_bins − 1.
        num_couplings: of f.
        hidden_channels: of the features and the couplings' networks.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, or an odd spatial size.

    Example:
        >>> noise = VariationalDequantisation(1, num_couplings=2, hidden_channels=4)
        >>> u, log_q = noise(torch.randint(256, (2, 1, 8, 8)).float())  # (2, 1, 8, 8), (2,)
    """

    def __init__(
        self,
        in_channels: int,
        num_bins: int = 256,
        *,
        num_couplings: int = 4,
        hidden_channels: int = 32,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        check_positive(hidden_channels=hidden_channels, num_couplings=num_couplings)
        self.num_bins = num_bins
        self.stride = (2,) * check_spatial_dims(spatial_dims)
        channels = 2**spatial_dims * in_channels
        convolution = CONVOLUTIONS[spatial_dims]
        self.features = nn.Sequential(
            convolution(channels, hidden_channels, 3, padding=1),
            ReLU(inplace=True),
            convolution(hidden_channels, hidden_channels, 3, padding=1),
        )
        subnet = functools.partial(GlowNet, hidden_channels=hidden_channels, spatial_dims=spatial_dims)
        seen = channels + hidden_channels
        couplings = (
            GlowCoupling(channels, subnet, flip=index % 2 == 1, condition_channels=seen)
            for index in range(num_couplings)
        )
        sigmoid = Inverse(Logit())
        keep_input(sigmoid)  # where it saturates, its input cannot be rebuilt from its output
        self.flow = Sequential(
            OrderedDict(
                couplings=Sequential(*couplings),
                ungroup=Inverse(group_by_parity(channels, spatial_dims)),
                unsqueeze=Inverse(Checkerboard(2, spatial_dims=spatial_dims)),
                sigmoid=sigmoid,
            )
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``u`` of the shape of the images (B, C, *spatial), and ``log q(u|k)`` of shape (B,)."""
        condition = self.condition(images)
        noise = torch.logit(torch.rand_like(condition[0]), eps=1e-7)  # the logit of 0 and 1 is infinite
        u, logdet = self.flow.forward_and_logdet(noise, condition)
        return u, logistic_log_density(noise) - logdet

    def condition(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The condition of the couplings: the squeezed image, scaled to (−1, 1), and its features."""
        scaled = (2 * images + 1) / self.num_bins - 1
        squeezed = to_blocks(scaled, self.stride).flatten(1, 2)  # (B, σC, *spatial/2)
        return squeezed, self.features(squeezed).to(squeezed.dtype)


def logistic_log_density(x: Tensor) -> Tensor:
    """``Σ −softplus(x) − softplus(−x)`` of shape (B,): the log-density of independent standard logistic numbers."""
    return -sum_per_sample(F.softplus(x) + F.softplus(-x))
