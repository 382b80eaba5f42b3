"""The iUNet as an architecture of nnU-Net v2, which builds the network that its plans name."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import Tensor, nn

from ..invertible import PolicyName, per_dimension, set_backprop
from ..invertible.arguments import chosen
from .blocks import ConvBlock, ProjectionConv
from .iunet import IUNet

# By the name of a configuration's convolution.
_SPATIAL_DIMS = {"Conv2d": 2, "Conv3d": 3}


class NnunetIUNet(nn.Module):
    """An iUNet between linear convolutions, with the constructor and the deep supervision that nnU-Net v2 expects.

    `iunet_plans` writes plans that name it. The first six arguments have nnU-Net's names and meaning.
    It returns logits (B, num_classes, *spatial). With deep supervision it returns a list of them, from the decoder's
    output on every level but the coarsest, finest first; see `IUNet.decoder_outputs` for what that keeps in memory.

    Without deep supervision, sizes that the strides do not divide are padded with zeros.

    Args:
        input_channels: of an image: its modalities, in a cascade also the classes of the stage before.
        num_classes: channels of the logits.
        n_stages: levels, at least two.
        features_per_stage: channels of each level, one number or one per level; see `IUNet` for which can be achieved.
        strides: of each level, one number or one per dimension. The first is 1: the finest level has the image's size.
        conv_op: torch's convolution for the images' number of dimensions, 2 or 3; only that number is used.
        num_couplings: per level and side, one number or one per level.
        norm: of the coupling functions, see `make_norm`; nnU-Net's is ``instance``.
        backprop: see `set_backprop`, which changes it later.
        deep_supervision: nnU-Net's trainer switches it by ``net.decoder.deep_supervision``.

    Raises:
        ValueError: for an option out of range, another number of channels, or a size that would need padding while
            deep supervision is on.

    Example:
        >>> net = NnunetIUNet(1, 3, n_stages=3, features_per_stage=[8, 16, 32], strides=2, conv_op=torch.nn.Conv3d)
        >>> net(torch.randn(1, 1, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        strides: int | Sequence[int | Sequence[int]],
        conv_op: type[nn.Module],
        *,
        num_couplings: int | Sequence[int] = 2,
        norm: str = "instance",
        backprop: PolicyName = "reversible",
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        spatial_dims = chosen("conv_op", conv_op.__name__, _SPATIAL_DIMS)
        if n_stages < 2:
            raise ValueError(f"expected n_stages of at least 2, got {n_stages}")
        features = _per_stage("features_per_stage", features_per_stage, n_stages)
        steps = [per_dimension(s, spatial_dims, "strides") for s in _per_stage("strides", strides, n_stages)]
        if isinstance(strides, int):
            steps[0] = (1,) * spatial_dims
        if set(steps[0]) != {1}:
            raise ValueError(f"expected a stride of 1 on the first stage, got {list(steps[0])}")
        self.lift = ProjectionConv(input_channels, features[0], spatial_dims=spatial_dims, kernel_size=3)
        self.body = IUNet(
            features,
            num_couplings,
            spatial_dims,
            strides=steps[1:],
            subnet=functools.partial(ConvBlock, spatial_dims=spatial_dims, norm=norm, zero_init=True),
            padding_mode="constant",
        )
        self.decoder = _Heads(self.body.channels[:-1], num_classes, spatial_dims, deep_supervision)
        set_backprop(self, backprop)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        state = self.lift(x)
        if self.decoder.deep_supervision:
            return self.decoder(self.body.decoder_outputs(state)[:-1])
        return self.decoder([self.body(state)])[0]


class _Heads(nn.Module):
    """A linear map to logits for each level; without deep supervision too, so that both load the same weights."""

    def __init__(self, channels: Sequence[int], num_classes: int, spatial_dims: int, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.heads = nn.ModuleList(ProjectionConv(width, num_classes, spatial_dims=spatial_dims) for width in channels)

    def forward(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The logits of the first levels, for as many outputs."""
        return [head(y) for head, y in zip(self.heads, outputs, strict=False)]


def _per_stage(option: str, value: int | Sequence, n_stages: int) -> list:
    values = [value] * n_stages if isinstance(value, int) else list(value)
    if len(values) != n_stages:
        raise ValueError(f"expected {option} to be one number or one for each of {n_stages} stages, got {value}")
    return values
