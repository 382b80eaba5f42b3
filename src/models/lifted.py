"""Linear convolutions around an invertible network, which has as many output channels as input channels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .blocks import ProjectionConv


class ImageBody(Protocol):
    """What can be lifted: a network from ``in_channels`` to ``in_channels`` channels."""

    in_channels: int
    spatial_dims: int

    def __call__(self, x: Tensor) -> Tensor: ...


class Lifted(nn.Module):
    """``project(body(lift(x)))`` with linear convolutions ``lift`` and ``project`` (iUNet paper, figure 5).

    The linear layers store no activation besides the network's input and the body's output.

    Both start as the central tap of their kernel only, with an isometry ``W`` and ``Wᵀ``: together with a body that
    starts as the identity, the network starts as the identity on the channels that input and output share.

    Args:
        in_channels, out_channels: channels of the images.
        body: a network with attributes ``in_channels`` and ``spatial_dims``; at least as many channels as the images.
        kernel_size: of both linear convolutions.

    Raises:
        ValueError: if the body has fewer channels than the images, or an input has another number of channels.
    """

    def __init__(self, in_channels: int, out_channels: int, body: nn.Module, kernel_size: int = 3) -> None:
        super().__init__()
        width, dims = int(body.in_channels), int(body.spatial_dims)  # type: ignore[arg-type]
        if width < max(in_channels, out_channels):
            raise ValueError(f"expected a body of at least {max(in_channels, out_channels)} channels, got {width}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.lift = ProjectionConv(in_channels, width, spatial_dims=dims, kernel_size=kernel_size)
        self.body = body
        self.project = ProjectionConv(width, out_channels, spatial_dims=dims, kernel_size=kernel_size)
        self._start_as_isometries(kernel_size, dims)

    def _start_as_isometries(self, kernel_size: int, dims: int) -> None:
        shared = max(self.in_channels, self.out_channels)
        columns = torch.linalg.qr(torch.randn(self.project.conv.in_channels, shared)).Q  # (width, shared)
        centre: tuple = (slice(None), slice(None), *(kernel_size // 2,) * dims)
        with torch.no_grad():
            for conv, matrix in (
                (self.lift.conv, columns[:, : self.in_channels]),
                (self.project.conv, columns.T[: self.out_channels]),
            ):
                conv.weight.zero_()
                conv.weight[centre] = matrix
                assert conv.bias is not None
                conv.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ValueError(f"expected images with {self.in_channels} channels, got {x.shape[1]}")
        return self.project(self.body(self.lift(x)))
