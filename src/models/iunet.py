"""The fully invertible U-Net (Etmann, Ke & Schönlieb, 2020)."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..invertible import (
    FORWARD,
    INVERSE,
    AdditiveCoupling,
    Coupling,
    Downsampling,
    InvertibleModule,
    OnChannels,
    OrthogonalMixing,
    Sequential,
    SubnetConstructor,
)
from ..invertible.arguments import check_channels, check_spatial_dims
from ..invertible.module import Call
from .blocks import ConvBlock
from .convolution import fast_layout
from .iunet_layout import achievable_channels, couplings_per_level, layout, strides_per_level
from .iunet_parts import IUNetParts, Place, alternating, map_and_inverse
from .spatial_padding import SpatialPadding


class IUNet(InvertibleModule):
    """A U-Net that is one bijection (iUNet paper, section 3).

    A level is ``Sequential(encoder, OnChannels(down → next level → up), decoder)``. Encoder and decoder consist of
    couplings. Between them, the split-off channels are downsampled, go through the coarser levels and are upsampled,
    while the other channels wait.

    The number of channels grows by λσ per level, where σ is the product of the strides and λ the fraction of
    split-off channels (λC must be an integer from 1 to C − 1). Channel numbers that this rules out are replaced by
    the closest achievable ones, with a warning.

    With coupling functions that start at zero (the default) the network starts as the identity: each upsampling starts
    as the inverse of its downsampling, each mixing in a decoder as the inverse of the one in the encoder.

    Args:
        channels: desired channels per level; the first is the number of input and output channels.
        num_couplings: per level and side, one number or one per level.
        strides: of the downsamplings, see `strides_per_level`.
        subnet: constructor ``(in_channels, out_channels) -> module`` of the coupling functions; by default a
            `ConvBlock` with layer norm that starts at zero.
        coupling: class of the couplings: `AdditiveCoupling` as in the paper, `GlowCoupling` for a flow.
        layer_at: instead of ``subnet`` and ``coupling``: constructor ``(channels, place) -> layer`` of the invertible
            layer at each `Place`, so that levels, sides and depths may have different ones.
        actnorm: an `ActNorm` before each coupling, for flows; the network then starts as the identity up to these.
        resampling: options of every `Downsampling`: ``method``, ``init``, ``learnable``, ``num_reflections``.
        mixing_frequency: n mixes channels after every n-th coupling, −1 only before every split and after every
            concatenation, 0 never.
        mixing: options of every `OrthogonalMixing`, the same as for ``resampling``.
        padding_mode: how to pad sizes that the strides do not divide, see `SpatialPadding`; None refuses them.
        padding_value: for ``padding_mode="constant"``.
        revert_padding: remove the padding from the output. The network is then not invertible on padded inputs.
        spatial_dims: 1, 2 or 3, of the states (B, channels[0], *spatial).

    Raises:
        ValueError: for an option out of range, another number of channels, or a size that would need padding.

    Source: C. Etmann, R. Ke, C.-B. Schönlieb: iUNets, arXiv:2005.05220.

    Example:
        >>> net, x = IUNet(channels=(4, 8), num_couplings=1, spatial_dims=2), torch.randn(2, 4, 8, 8)
        >>> torch.allclose(net.inverse(net(x)), x, atol=1e-4)
        True
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_couplings: int | Sequence[int] = 4,
        spatial_dims: int = 3,
        *,
        strides: int | Sequence[int | Sequence[int]] = 2,
        subnet: SubnetConstructor | None = None,
        coupling: Callable[..., Coupling] = AdditiveCoupling,
        layer_at: Callable[[int, Place], InvertibleModule] | None = None,
        actnorm: bool = False,
        resampling: dict[str, Any] | None = None,
        mixing_frequency: int = -1,
        mixing: dict[str, Any] | None = None,
        padding_mode: str | None = None,
        padding_value: float = 0.0,
        revert_padding: bool = True,
    ) -> None:
        super().__init__()
        self.spatial_dims = check_spatial_dims(spatial_dims)
        if isinstance(channels, int) or not channels or min(channels) < 1:
            raise ValueError(f"expected a positive number of channels for each level, got channels={channels}")
        if mixing_frequency < -1:
            raise ValueError(f"expected mixing_frequency to be -1, 0 or positive, got {mixing_frequency}")
        self.strides = strides_per_level(strides, len(channels) - 1, spatial_dims)
        self.channels = achievable_channels(channels, self.strides)
        self.num_couplings = couplings_per_level(num_couplings, len(channels))
        self.in_channels = self.channels[0]
        self.revert_padding = revert_padding
        factors = [math.prod(column) for column in zip(*self.strides, strict=True)] or [1] * spatial_dims
        self.padding = SpatialPadding(factors, padding_mode, padding_value)
        if layer_at is None:
            subnet = subnet or functools.partial(ConvBlock, spatial_dims=spatial_dims, zero_init=True)
            layer_at = functools.partial(alternating, coupling, subnet)
        elif subnet is not None or coupling is not AdditiveCoupling:
            raise ValueError("expected either layer_at, or subnet and coupling, got both")
        parts = IUNetParts(
            layer_at=layer_at,
            actnorm=actnorm,
            downsampling=functools.partial(Downsampling, spatial_dims=spatial_dims, **(resampling or {})),
            mixing_frequency=mixing_frequency,
            mixing=functools.partial(OrthogonalMixing, **(mixing or {})),
        )
        self.body = self._build_level(0, parts)

    def _build_level(self, level: int, parts: IUNetParts) -> Sequential:
        channels, count = self.channels[level], self.num_couplings[level]
        is_last = level == len(self.channels) - 1
        encoder, decoder = parts.encoder_and_decoder(channels, count, level, is_last)
        if is_last:
            return Sequential(OrderedDict(encoder=encoder, decoder=decoder))
        stride = self.strides[level]
        split_off = self.channels[level + 1] // math.prod(stride)
        down, up = map_and_inverse(lambda: parts.downsampling(split_off, stride))
        inner = Sequential(OrderedDict(down=down, level=self._build_level(level + 1, parts), up=up))
        return Sequential(
            OrderedDict(encoder=encoder, coarser=OnChannels(inner, channels - split_off), decoder=decoder)
        )

    @property
    def bijection(self) -> Sequential:
        return self.body

    @property
    def pads_input(self) -> bool:  # type: ignore[override]
        return self.padding.mode is not None

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.in_channels, self.spatial_dims)
        y = self.body(self.padding.pad(fast_layout(x)))
        return self.padding.crop(y, x.shape[2:]) if self.revert_padding else y

    def inverse(self, y: Tensor) -> Tensor:
        """The input that gives ``y``, whose size the strides divide: what `revert_padding` removes is lost."""
        self._check_divisible(y)
        return self.body.inverse(fast_layout(y))

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check_divisible(x)
        return self.body.forward_and_logdet(fast_layout(x))

    def inverse_and_logdet(self, y: Tensor) -> tuple[Tensor, Tensor]:
        self._check_divisible(y)
        return self.body.inverse_and_logdet(fast_layout(y))

    def padded_inverse(self, y: Tensor) -> Tensor:
        """Like iunets' inverse: for sizes that the strides do not divide, that of the padded ``y``, cropped.

        It is exact on the sizes that `inverse` takes. On others it is not: what `revert_padding` removed is lost.
        """
        check_channels(y, self.in_channels, self.spatial_dims)
        return self.padding.crop(self.body.inverse(self.padding.pad(fast_layout(y))), y.shape[2:])

    def encode(self, x: Tensor) -> list[Tensor]:
        """The codes of the contracting side: per level the waiting channels, and last the coarsest features.

        They are computed by plain autograd under every backprop policy, as those of the three methods below.
        """
        check_channels(x, self.in_channels, self.spatial_dims)
        return self._contract(self.padding.pad(x), FORWARD, "encoder", "down")

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """The output for these codes: ``decode(encode(x))`` is ``forward(x)`` with its padding.

        Raises:
            ValueError: unless there is one code per level.
        """
        return self._expand(codes, FORWARD, "decoder", "up")

    def encoder_inverse(self, codes: Sequence[Tensor]) -> Tensor:
        """The input, with its padding, that `encode` maps to these codes.

        Raises:
            ValueError: unless there is one code per level.
        """
        return self._expand(codes, INVERSE, "encoder", "down")

    def decoder_inverse(self, y: Tensor) -> list[Tensor]:
        """The codes that `decode` maps to ``y``, whose size the strides divide."""
        self._check_divisible(y)
        return self._contract(y, INVERSE, "decoder", "up")

    def _contract(self, x: Tensor, call: Call, side: str, resampling: str) -> list[Tensor]:
        """From the finest level to the coarsest, along the encoder or backwards along the decoder."""
        codes, levels = [], self._levels()
        for level in levels[:-1]:
            coarser: Any = level.coarser
            x = call(getattr(level, side), x)
            codes.append(x[:, : coarser.num_kept])
            x = call(getattr(coarser.inner, resampling), x[:, coarser.num_kept :])
        return [*codes, call(getattr(levels[-1], side), x)]

    def _expand(self, codes: Sequence[Tensor], call: Call, side: str, resampling: str) -> Tensor:
        """From the coarsest level to the finest, along the decoder or backwards along the encoder."""
        levels = self._levels()
        if len(codes) != len(levels):
            raise ValueError(f"expected {len(levels)} codes, one per level, got {len(codes)}")
        y = call(getattr(levels[-1], side), codes[-1])
        for level, waiting in zip(reversed(levels[:-1]), reversed(codes[:-1]), strict=True):
            coarser: Any = level.coarser
            y = call(getattr(level, side), torch.cat((waiting, call(getattr(coarser.inner, resampling), y)), dim=1))
        return y

    def decoder_outputs(self, x: Tensor) -> list[Tensor]:
        """The output of the decoder on each level, finest first, for losses on several levels.

        The first is ``forward(x)``. Each level's encoder and decoder is evaluated under the network's backprop policy
        by itself: ``reversible`` keeps two states per level, however many couplings there are.

        Raises:
            ValueError: for another number of channels, or a size that the strides do not divide.
        """
        self._check_divisible(x)
        x = fast_layout(x)
        entrance: list[InvertibleModule] = []  # the downsampling from the level above
        waiting = []
        *levels, last = self._levels()
        for level in levels:
            coarser: OnChannels = level.coarser  # type: ignore[assignment]
            x = self._under_policy(*entrance, level.encoder)(x)
            waiting.append(x[:, : coarser.num_kept])
            x = x[:, coarser.num_kept :]
            entrance = [coarser.inner.down]  # type: ignore[list-item]
        outputs = [self._under_policy(*entrance, last.encoder, last.decoder)(x)]
        for level in reversed(levels):
            # Plain autograd keeps the upsampling's input, which is kept as an output of the coarser level anyway.
            rest = level.coarser.inner.up(outputs[0])  # type: ignore[union-attr, operator]
            outputs.insert(0, self._under_policy(level.decoder)(torch.cat((waiting.pop(), rest), dim=1)))
        return outputs

    def _under_policy(self, *parts: Any) -> Sequential:
        """Some parts as a tree of their own under this network's backprop policy."""
        tree = Sequential(*parts)
        tree.backprop_policy = self.body.backprop_policy
        return tree

    def _levels(self) -> list[Sequential]:
        levels = [self.body]
        for _ in self.channels[1:]:
            levels.append(levels[-1].coarser.inner.level)  # type: ignore[union-attr, arg-type]
        return levels

    def _check_divisible(self, x: Tensor) -> None:
        check_channels(x, self.in_channels, self.spatial_dims)
        if any(self.padding.missing(x.shape[2:])):
            raise ValueError(
                f"expected a spatial size divisible by {self.padding.factors}, got {tuple(x.shape[2:])}: "
                "the network is a bijection only on such sizes"
            )

    def layout(self) -> str:
        """The network as text: per level the couplings on both sides, and waiting + split-off channels."""
        return layout(self.channels, self.num_couplings, self.strides)
