"""Linear convolutions around an invertible network, which cannot change the number of channels itself."""

import torch
from torch import Tensor, nn

from ..invertible.arguments import check_channels
from .blocks import ProjectionConv, start_at_zero


class Lifted(nn.Module):
    """``project(body(lift(x)))`` with linear convolutions ``lift`` and ``project`` (iUNet paper, figure 5).

    For their gradients, the linear layers save the network's input and the body's output only. They start with an
    isometry ``W`` and with ``Wᵀ`` at the centre of their kernels and zeros elsewhere: with a body that starts as the
    identity, the network starts as the identity on the channels that input and output share.

    The network has no inverse: ``project`` keeps ``out_channels`` of the body's channels. An invertible body has one,
    ``body.inverse(body(lift(x))) = lift(x)``.

    Args:
        in_channels, out_channels: of images (B, in_channels, *spatial) and results (B, out_channels, *spatial).
        body: a network from ``body.in_channels`` to as many channels, with ``body.spatial_dims``.
        kernel_size: of both linear convolutions.

    Raises:
        ValueError: for a body without these attributes or with fewer channels than the images, and an input of another
            shape.

    Example:
        >>> net = Lifted(in_channels=1, out_channels=1, body=IUNet((4, 8), num_couplings=1, spatial_dims=2))
        >>> net(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, body: nn.Module, kernel_size: int = 3) -> None:
        super().__init__()
        lacking = [name for name in ("in_channels", "spatial_dims") if not hasattr(body, name)]
        if lacking:
            raise ValueError(f"expected a body with {' and '.join(lacking)}, got {type(body).__name__} without")
        width, dims = int(body.in_channels), int(body.spatial_dims)  # type: ignore[arg-type]
        if width < max(in_channels, out_channels):
            raise ValueError(f"expected a body of at least {max(in_channels, out_channels)} channels, got {width}")
        self.in_channels = in_channels
        self.spatial_dims = dims
        self.out_channels = out_channels
        self.lift = ProjectionConv(in_channels, width, spatial_dims=dims, kernel_size=kernel_size)
        self.body = body
        self.project = ProjectionConv(width, out_channels, spatial_dims=dims, kernel_size=kernel_size)
        columns = torch.linalg.qr(torch.randn(width, max(in_channels, out_channels))).Q
        isometries = {self.lift.conv: columns[:, :in_channels], self.project.conv: columns.T[:out_channels]}
        with torch.no_grad():
            for conv, matrix in isometries.items():
                start_at_zero(conv)
                conv.weight.flatten(2)[..., kernel_size**dims // 2] = matrix  # at the centre

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels, self.spatial_dims)
        return self.project(self.body(self.lift(x)))

    def inverse(self, y: Tensor) -> Tensor:
        """Raise NotImplementedError that says which part can be inverted."""
        raise NotImplementedError(
            f"expected the output of an invertible part, got that of {type(self).__name__}, whose last convolution "
            f"keeps {self.out_channels} of {self.project.conv.in_channels} channels; only the body between its two "
            "convolutions can be inverted: net.body.inverse(net.body(z)) is z = net.lift(x)"
        )
