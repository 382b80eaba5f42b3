"""i-ConvNet: the poster's flow of convolutions and activations, and two multi-scale ones (Finzi et al., 2019)."""

from collections import OrderedDict
from collections.abc import Sequence

from ..invertible import (
    Checkerboard,
    GlobalAffine,
    Inverse,
    InvertibleConv1x1,
    InvertibleModule,
    OnChannels,
    invertible_pooling,
)
from ..invertible import Sequential as InvertibleSequential
from ..invertible.arguments import check_positive, check_spatial_dims
from .iconvnet import IConvLayer, check_stages
from .multiscale import Halving, multiscale, squeezed_channels


class IConvNetFlow(Halving):
    """Stages of circular convolutions and `SneakyReLU` with invertible pooling between them, as on the poster.

    There is no coupling, no normalisation, and nothing is factored out: every layer changes all numbers, and
    ``log|det Df| = Σ_i (log|det Conv_i| + Σ log σ'(a_i))`` plus a constant of the pooling. The last convolution has no
    activation, so that latents are not distorted. The likelihood keeps the convolutions invertible: near a singular
    one, its log-determinant falls.

    From (B, C, *spatial) to a latent of the same shape, whose last σⁿC channels (σ = 2^spatial_dims, n poolings) are
    put back into blocks of voxels. The default is the authors' ``iCNN3d`` of github.com/izmailovpavel/flowgmm, with
    1,394,400 parameters for 3 channels. Its kernels start as torch's; ours start near orthogonal matrices.

    Args:
        in_channels: number of channels C.
        num_layers: convolutions per stage, finest first.
        downsampling: between stages: ``checkerboard``, ``nearest`` or ``average`` (the poster's iAvgPool2d).
        slope: of the activations at −∞.
        kernel_size: of the convolutions.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that cannot be halved
            between the stages.

    Source: M. Finzi, P. Izmailov, W. Maddox, P. Kirichenko, A.G. Wilson: Invertible convolutional networks (2019).

    Example:
        >>> z, logdet = IConvNetFlow(1, num_layers=(1, 1)).forward_and_logdet(torch.randn(2, 1, 8, 8))
        >>> z.shape, logdet.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2]))
    """

    def __init__(
        self,
        in_channels: int,
        num_layers: Sequence[int] = (3, 3, 3, 4),
        *,
        kernel_size: int = 3,
        downsampling: str = "average",
        slope: float = 0.1,
        spatial_dims: int = 2,
    ) -> None:
        check_spatial_dims(spatial_dims)
        check_stages(num_layers)
        widths = [2 ** (spatial_dims * stage) * in_channels for stage in range(len(num_layers))]
        parts: list[InvertibleModule] = []
        for stage, (channels, count) in enumerate(zip(widths, num_layers, strict=True)):
            if stage > 0:
                parts.append(invertible_pooling(downsampling, spatial_dims=spatial_dims))
            slopes = [slope] * (count - 1) + [None if channels == widths[-1] else slope]
            parts += [IConvLayer(channels, kernel_size, s, spatial_dims, normalised=False) for s in slopes]
        blocks = Checkerboard(2 ** (len(widths) - 1), spatial_dims=spatial_dims)
        super().__init__(in_channels, len(widths) - 1, layers=InvertibleSequential(*parts), unsqueeze=Inverse(blocks))


class IConvNetMultiscaleFlow(Halving):
    """The authors' multi-scale flow: half of the channels leave at each pooling, after a 1×1 convolution.

    A level has ``num_layers`` circular convolutions with `ActNorm` and `SneakyReLU`; pooling turns its k channels into
    σk (σ = 2^spatial_dims), a 1×1 convolution mixes them, and the next level goes on with one half of them. The last
    level ends with a convolution alone. From (B, C, *spatial) to a latent of the same shape.

    Applied to images with noise as further channels (``augmented_channels=64`` of `DensityModel`), the default is
    ``MultiScaleiCNN`` of github.com/izmailovpavel/flowgmm, which has 3.24 million parameters. Its batch normalisations
    are `ActNorm` here, since a batch's statistics would make its samples' likelihoods depend on each other.

    Args:
        in_channels: number of channels C of the state.
        num_layers: convolutions with activations per level, finest first.
        downsampling: between levels: ``checkerboard``, ``nearest`` or ``average``.
        slope: of the activations at −∞.
        kernel_size: of the convolutions.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that cannot be halved
            between the levels.

    Source: see `IConvNetFlow`.

    Example:
        >>> flow = IConvNetMultiscaleFlow(2, num_layers=(1, 1))
        >>> z, logdet = flow.forward_and_logdet(torch.randn(2, 2, 8, 8))  # (2, 2, 8, 8), (2,)
    """

    def __init__(
        self,
        in_channels: int,
        num_layers: Sequence[int] = (3, 3, 3),
        *,
        kernel_size: int = 3,
        downsampling: str = "nearest",
        slope: float = 0.1,
        spatial_dims: int = 2,
    ) -> None:
        check_stages(num_layers)
        factor = 2 ** check_spatial_dims(spatial_dims)
        widths = [(factor // 2) ** level * in_channels for level in range(len(num_layers))]

        def layers(channels: int, count: int) -> list[InvertibleModule]:
            return [IConvLayer(channels, kernel_size, slope, spatial_dims) for _ in range(count)]

        last = IConvLayer(widths[-1], kernel_size, None, spatial_dims, normalised=False)
        flow = InvertibleSequential(*layers(widths[-1], num_layers[-1]), last)
        for channels, count in reversed(list(zip(widths[:-1], num_layers[:-1], strict=True))):
            pooling = invertible_pooling(downsampling, spatial_dims=spatial_dims)
            pooled = factor * channels
            mixing = (InvertibleConv1x1(pooled, "full"), GlobalAffine(pooled, activation=None))
            coarser = OnChannels(flow, pooled // 2)
            unsqueeze = Inverse(Checkerboard(2, spatial_dims=spatial_dims))
            flow = InvertibleSequential(*layers(channels, count), pooling, *mixing, coarser, unsqueeze)
        super().__init__(in_channels, len(widths) - 1, levels=flow)


class IConvNetGlowFlow(InvertibleSequential):
    """Glow's architecture with the poster's layers: ``num_layers`` convolutions, each normalised, on each level.

    Every layer is a circular convolution, `ActNorm` and `SneakyReLU`; the last one of a level has no activation, so
    that latents are not distorted. From (B, C, *spatial) to a latent of the same shape, see `multiscale`.

    Args:
        in_channels: number of channels C.
        num_levels: number of resolutions.
        num_layers: convolutions per level.
        slope: of the activations at −∞.
        kernel_size: of the convolutions.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, another number of channels, or a spatial size that 2^num_levels does
            not divide.

    Source: see `IConvNetFlow`.

    Example:
        >>> flow = IConvNetGlowFlow(1, num_levels=2, num_layers=1)
        >>> z, logdet = flow.forward_and_logdet(torch.randn(2, 1, 8, 8))  # (2, 1, 8, 8), (2,)
    """

    def __init__(
        self,
        in_channels: int,
        num_levels: int = 3,
        num_layers: int = 8,
        *,
        kernel_size: int = 3,
        slope: float = 0.1,
        spatial_dims: int = 2,
    ) -> None:
        check_positive(num_layers=num_layers)
        slopes = [slope] * (num_layers - 1) + [None]
        levels = [
            [IConvLayer(channels, kernel_size, layer_slope, spatial_dims) for layer_slope in slopes]
            for channels in squeezed_channels(in_channels, num_levels, spatial_dims)
        ]
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))
