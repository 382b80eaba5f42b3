"""Networks trained with cetmann/iunets, the reference implementation of the iUNet paper, as `IUNet`."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..invertible import (
    AdditiveCoupling,
    InvertibleModule,
    OrthogonalMatrices,
    OrthogonalMixing,
    Permutation,
    Sequential,
)
from ..invertible.arguments import check_choice
from .blocks import ConvBlock
from .iunet import IUNet
from .iunet_layout import strides_per_level

METHODS = ("cayley", "exp")


def iunet_from_iunets(
    state: Mapping[str, Tensor],
    *,
    strides: int | Sequence[int | Sequence[int]] = 2,
    resampling_method: str = "cayley",
    mixing_method: str = "cayley",
    padding_mode: str | None = "constant",
    padding_value: float = 0.0,
    revert_padding: bool = True,
) -> IUNet:
    """The `IUNet` with the weights, and hence the outputs, of an ``iunets.iUNet`` with its default coupling layers.

    Channels, levels, couplings, spatial dimensions and block depth are read from the weights. The arguments are the
    options that cannot be read from weights, with the defaults of iunets.

    Its couplings exchange the two groups of channels, ``[x₁, x₂] ↦ [x₂, x₁ + F(x₂)]``, where ours leave channels in
    place and alternate between the groups. If an odd number of couplings leaves the order exchanged, the fixed factor
    of the next channel mixing restores it, or a `Permutation` where there is none. Its decoders mix after a coupling,
    and so do those of the returned network, unlike those that `IUNet` builds.

    Args:
        state: ``net.state_dict()`` of the ``iunets.iUNet``.
        strides: ``resampling_stride``.
        resampling_method: ``cayley`` or ``exp``.
        mixing_method: ``channel_mixing_method``: ``cayley`` or ``exp``.
        padding_mode, padding_value: of the same name.
        revert_padding: ``revert_input_padding``.

    Raises:
        ValueError: for Householder matrices (in iunets, they are orthogonal to six digits only), other coupling layers
            or normalisations, or strides that contradict the weights.

    Example:
        >>> try:
        ...     iunet_from_iunets({})  # expects ``iunets.iUNet(...).state_dict()``
        ... except ValueError as error:
        ...     print(error)
        expected the state_dict of an iunets.iUNet whose first layer is a coupling, got another
    """
    check_choice("resampling_method", resampling_method, METHODS)
    check_choice("mixing_method", mixing_method, METHODS)
    source = _Source(state)
    volumes = [math.prod(s) for s in strides_per_level(strides, len(source.volumes), source.spatial_dims)]
    if volumes != source.volumes:
        raise ValueError(f"expected strides with products {source.volumes}, as in the weights, got {strides}")
    net = IUNet(
        source.channels,
        0,
        source.spatial_dims,
        strides=strides,
        resampling={"method": resampling_method, "init": "pixel_shuffle"},
        mixing_frequency=0,
        padding_mode=padding_mode,
        padding_value=padding_value,
        revert_padding=revert_padding,
    )
    net.num_couplings = source.num_couplings
    level: Any = net.body
    for index, channels in enumerate(source.channels):
        level.encoder = _chain(source, f"encoder_modules.{index}", channels, mixing_method)
        level.decoder = _chain(source, f"decoder_modules.{index}", channels, mixing_method)
        if index < len(source.channels) - 1:
            down, up = level.coarser.inner.down, level.coarser.inner.up.module
            _set_matrices(down.matrices, source.take(f"downsampling_layers.{index}._fn.weight"))
            _set_matrices(up.matrices, source.take(f"upsampling_layers.{index}._fn.weight"))
            level = level.coarser.inner.level
    source.check_all_taken()
    return net


class _Source:
    """The weights of an ``iunets.iUNet``, and its sizes as read from them."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        # Every block holds its layers twice, as `seq` and as `F`.
        self._weights = {key: value for key, value in state.items() if ".F.seq." not in key}
        num_levels = 1 + sum(key.startswith("downsampling_layers.") for key in self._weights)
        first = [value for key, value in self._weights.items() if re.match(r"encoder_modules\.0\.0\..*weight$", key)]
        convolutions = [weight for weight in first if weight.ndim > 2]
        if not convolutions:
            raise ValueError("expected the state_dict of an iunets.iUNet whose first layer is a coupling, got another")
        self.spatial_dims = convolutions[0].ndim - 2
        self.channels = [convolutions[0].shape[1] + convolutions[-1].shape[0]]
        self.volumes = []
        for level in range(num_levels - 1):
            low, volume, _ = self._weights[f"downsampling_layers.{level}._fn.weight"].shape
            self.channels.append(low * volume)
            self.volumes.append(volume)
        encoders = [self.parts(f"encoder_modules.{level}") for level in range(num_levels)]
        self.num_couplings = [sum(not self.is_mixing(part) for part in parts) for parts in encoders]

    def parts(self, chain: str) -> list[str]:
        """The parts of an encoder or decoder, in order."""
        indices = {int(match[1]) for key in self._weights if (match := re.match(rf"{chain}\.(\d+)\.", key))}
        return [f"{chain}.{index}._fn" for index in sorted(indices)]

    def is_mixing(self, part: str) -> bool:
        return f"{part}.weight" in self._weights

    def take(self, key: str) -> Tensor:
        if key not in self._weights:
            raise ValueError(f"expected the weights of an iunets.iUNet with instance norm, but {key} is missing")
        return self._weights.pop(key)

    def depth(self, part: str) -> int:
        """Number of convolutions of a coupling's block."""
        return sum(key.startswith(f"{part}.F.F.") and value.ndim > 2 for key, value in self._weights.items())

    def check_all_taken(self) -> None:
        if self._weights:
            raise ValueError(
                "expected the weights of an iunets.iUNet with its default coupling layers and instance norm only, got "
                f"additional weights {', '.join(sorted(self._weights))}"
            )


def _chain(source: _Source, chain: str, channels: int, mixing_method: str) -> Sequential:
    """One encoder or decoder. Channels stay in place; the first ``turned`` of them are last in iunets' order."""
    parts: list[InvertibleModule] = []
    turned, num_couplings = 0, 0
    for name in source.parts(chain):
        if source.is_mixing(name):
            parts.append(_mixing(source.take(f"{name}.weight"), turned, mixing_method))
            turned = 0
            continue
        # In iunets, couplings change the first `channels // 2` of an odd number, then the others, and so on.
        changed = channels // 2 if num_couplings % 2 == 0 else channels - channels // 2
        first, flip = (turned, False) if turned else (changed, True)
        parts.append(_coupling(source, name, channels, first, flip))
        turned = 0 if turned else changed
        num_couplings += 1
    if turned:
        parts.append(Permutation(channels, _turned(channels, turned)))
    return Sequential(*parts)


def _turned(channels: int, turned: int) -> list[int]:
    """The order of channels in iunets: those that lead here come last."""
    return [*range(turned, channels), *range(turned)]


def _mixing(weight: Tensor, turned: int, method: str) -> OrthogonalMixing:
    """``y = R(W) P x``, where P restores the order of channels in iunets."""
    channels = weight.shape[-1]
    layer = OrthogonalMixing(channels, method=method, init=torch.eye(channels)[_turned(channels, turned)])
    _set_matrices(layer.matrices, weight[None])
    return layer


def _set_matrices(matrices: OrthogonalMatrices, weight: Tensor) -> None:
    """Both libraries parametrise by ``W − Wᵀ``. The fixed factor, the identity or a permutation, stays."""
    if matrices.theta.shape != weight.shape:
        raise ValueError(f"expected matrices of shape {tuple(matrices.theta.shape)}, got {tuple(weight.shape)}")
    with torch.no_grad():
        matrices.theta.copy_(weight)


def _coupling(source: _Source, name: str, channels: int, split: int, flip: bool) -> AdditiveCoupling:
    depth = source.depth(name)
    subnet = functools.partial(
        ConvBlock, spatial_dims=source.spatial_dims, depth=depth, norm="instance", final_activation=True
    )
    coupling = AdditiveCoupling(channels, subnet, split=split, flip=flip)
    weights: dict[str, Tensor] = {}
    for i in range(depth):
        weights[f"conv{i}.weight"] = source.take(f"{name}.F.F.{3 * i}.weight")
        for parameter in ("weight", "bias"):
            weights[f"norm{i}.{parameter}"] = source.take(f"{name}.F.F.{3 * i + 1}.{parameter}")
    try:
        coupling.subnet.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"expected an iunets.iUNet with its default coupling layers: {error}") from error
    return coupling
