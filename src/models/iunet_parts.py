"""What the levels of an iUNet are made of, and where each layer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..invertible import (
    ActNorm,
    Coupling,
    Downsampling,
    Inverse,
    InvertibleModule,
    OrthogonalMixing,
    Sequential,
    SubnetConstructor,
)


@dataclass(frozen=True)
class Place:
    """Where a layer of an iUNet is.

    Attributes:
        level: 0 for the finest.
        branch: ``encoder`` or ``decoder``.
        index: among the layers of that level and branch, counted from the network's input in the encoder and from its
            output in the decoder, so that equal indices face each other.

    Example:
        >>> def layer_at(channels: int, place: Place) -> InvertibleModule:
        ...     return ActNorm(channels) if place.level == 0 else SneakyReLU()
        >>> net = IUNet(channels=(4, 8), num_couplings=1, spatial_dims=2, layer_at=layer_at)
    """

    level: int
    branch: str
    index: int


def alternating(
    coupling: Callable[..., Coupling], subnet: SubnetConstructor, channels: int, place: Place
) -> InvertibleModule:
    """Couplings that change the two halves in turn."""
    return coupling(channels, subnet, flip=place.index % 2 == 1)


@dataclass(frozen=True)
class IUNetParts:
    """Constructors of the parts of every level."""

    layer_at: Callable[[int, Place], InvertibleModule]
    actnorm: bool
    downsampling: Callable[[int, tuple[int, ...]], Downsampling]
    mixing_frequency: int
    mixing: Callable[[int], OrthogonalMixing]

    def encoder_and_decoder(
        self, channels: int, count: int, level: int, is_last: bool
    ) -> tuple[Sequential, Sequential]:
        """The layers of a level with their mixings. The decoder mirrors the encoder."""
        encoder: list[InvertibleModule] = []
        decoder: list[InvertibleModule] = []
        for i in range(count):
            encoder += self._normalised_layer(channels, Place(level, "encoder", i))
            decoder[:0] = self._normalised_layer(channels, Place(level, "decoder", i))
            if self.mixing_frequency > 0 and (i + 1) % self.mixing_frequency == 0:
                self._append_mixing(channels, encoder, decoder)
        if self.mixing_frequency == -1 and not is_last:
            self._append_mixing(channels, encoder, decoder)
        return Sequential(*encoder), Sequential(*decoder)

    def _normalised_layer(self, channels: int, place: Place) -> list[InvertibleModule]:
        layer = self.layer_at(channels, place)
        return [ActNorm(channels), layer] if self.actnorm else [layer]

    def _append_mixing(self, channels: int, encoder: list[InvertibleModule], decoder: list[InvertibleModule]) -> None:
        mixing, unmixing = map_and_inverse(lambda: self.mixing(channels))
        encoder.append(mixing)
        decoder.insert(0, unmixing)


def map_and_inverse(make: Callable[[], Any]) -> tuple[Any, Inverse]:
    """A map and the inverse of a second one, which has parameters of its own that start equal."""
    first, second = make(), make()
    second.load_state_dict(first.state_dict())
    return first, Inverse(second)
