"""The multi-scale architecture of RealNVP as one bijection, whose state includes the latents that are factored out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from ..invertible import Checkerboard, Inverse, InvertibleModule, OnChannels, Permutation, Sequential, Step
from ..invertible.arguments import check_channels, check_halvings, check_positive, check_spatial_dims


def multiscale(levels: Sequence[Sequence[InvertibleModule]], in_channels: int, *, spatial_dims: int = 2) -> Sequential:
    """Squeeze, steps of a level, next level on half of the channels, unsqueeze (Dinh et al., 2017, section 3.6).

    ``level_i = unsqueeze ∘ OnChannels(keep the first half, level_{i+1}) ∘ steps_i ∘ squeeze``, and the last level has
    no split. The squeeze is a `Checkerboard` with stride 2. A state (B, C, *spatial) becomes a latent of the same
    shape, in which a factored-out number lies near the voxels that it comes from. So no list of latents is needed, and
    the whole flow is one tree. The steps of level i work on `squeezed_channels` channels. They factor out the first
    half of these and pass on the second.

    The steps may make the half that is factored out depend on the half that goes on: a coupling with ``flip`` at their
    end is Glow's learned prior.

    Args:
        levels: the steps of each level, finest first.
        in_channels: number of channels C.

    Raises:
        ValueError: without a level; later, for a state with another number of channels, or a spatial size that
            2^num_levels does not divide.
    """
    widths = squeezed_channels(in_channels, len(levels), spatial_dims)
    parts: dict[str, InvertibleModule] = {}
    for depth, (steps, width) in enumerate(reversed(list(zip(levels, widths, strict=True))), start=1):
        level = Squeezed(width // 2**spatial_dims, depth, spatial_dims, steps=Sequential(*steps), **parts)
        parts = {"coarser": OnChannels(level, level.in_channels)}  # keeps as many channels as it passes on
    return level


class Halving(Sequential):
    """Named parts that halve the spatial size ``num_halvings`` times; it checks a state before anything is computed.

    Args:
        in_channels: number of channels of the state.
        num_halvings: how often the spatial size must be divisible by two.
        parts: in their order.
    """

    def __init__(self, in_channels: int, num_halvings: int, **parts: InvertibleModule) -> None:
        super().__init__(OrderedDict(parts))
        self.in_channels = in_channels
        self.num_halvings = num_halvings

    def run(self, x: Tensor, step: Step) -> Tensor:
        check_channels(x, self.in_channels)
        check_halvings(x, self.num_halvings)
        return super().run(x, step)


class Squeezed(Halving):
    """The parts between a squeeze and its inverse.

    Args:
        in_channels, num_halvings: of the state before the squeeze, see `Halving`.
        spatial_dims: 1, 2 or 3.
        parts: of the squeezed state, in their order.
    """

    def __init__(self, in_channels: int, num_halvings: int, spatial_dims: int, **parts: InvertibleModule) -> None:
        squeeze = Checkerboard(2, spatial_dims=spatial_dims)
        super().__init__(in_channels, num_halvings, squeeze=squeeze, **parts, unsqueeze=Inverse(squeeze))


def squeezed_channels(in_channels: int, num_levels: int, spatial_dims: int = 2) -> list[int]:
    """Channels that the steps of each level see: ``σ (σ/2)ⁱ C`` on level i = 0, 1, …, with σ = 2^spatial_dims.

    A squeeze turns one channel into σ, and half of a level's channels go on: in 2D, 3 channels become 12, 24, 48, ….

    Raises:
        ValueError: without a channel or a level.
    """
    check_positive(in_channels=in_channels, num_levels=num_levels)
    factor = 2 ** check_spatial_dims(spatial_dims)
    return [factor * (factor // 2) ** level * in_channels for level in range(num_levels)]


def group_by_parity(channels: int, spatial_dims: int = 2) -> Permutation:
    """The permutation of σC squeezed channels that puts the even voxels of all blocks before the odd ones.

    The halves of the channels are then the black and the white fields of a checkerboard: in 2D, voxels 1 and 4 of
    each block of 2×2, and voxels 2 and 3.

    Raises:
        ValueError: unless the channels are a multiple of σ = 2^spatial_dims.
    """
    factor = 2 ** check_spatial_dims(spatial_dims)
    if channels < 1 or channels % factor:
        raise ValueError(f"expected channels to be a multiple of {factor}, got {channels}")
    # A voxel's place k in its block has the bits of its coordinates as binary digits.
    return Permutation(channels, sorted(range(channels), key=lambda c: (c % factor).bit_count() % 2))
