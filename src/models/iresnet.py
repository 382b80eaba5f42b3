"""Invertible residual networks, as classifiers and as flows (Behrmann et al., 2019; Chen et al., 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from src.invertible.actnorm import ActNorm
from src.invertible.logdet import LogDetEstimator, logdet_estimator
from src.invertible.module import InvertibleModule
from src.invertible.module import Sequential as InvertibleSequential
from src.invertible.pooling import Checkerboard
from src.invertible.resampling import per_dimension

from .blocks import check_spatial_dims, make_norm
from .invertible_classifier import InvertibleClassifier, pooled_head
from .iresnet_blocks import bottleneck, residual_steps
from .multiscale import channels_per_level, multiscale
from .padding_channels import InjectivePadding


class IResNetClassifier(InvertibleClassifier):
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_blocks: Sequence[int] = (7, 7, 7),
        hidden_channels: int | Sequence[int] = (32, 64, 128),
        *,
        padded_channels: int | None = 16,
        coefficient: float = 0.9,
        activation: str = "elu",
        actnorm: bool = True,
        keep_inputs: bool = True,
        spatial_dims: int = 2,
    ) -> None:
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels
        widths = per_dimension(hidden_channels, len(num_blocks), "hidden_channels")
        parts: list[InvertibleModule] = []
        for scale, (count, width) in enumerate(zip(per_dimension(num_blocks, len(num_blocks), "num_blocks"), widths, strict=True)):
            if scale:
                parts.append(Checkerboard(2, spatial_dims=spatial_dims))
                channels *= 2**spatial_dims
            parts += residual_steps(channels, count, lambda i: bottleneck(width, activation=activation, leading_activation=scale + i > 0, spatial_dims=spatial_dims), actnorm=actnorm, keep_inputs=keep_inputs, coefficient=coefficient)
        super().__init__(padding, InvertibleSequential(*parts), pooled_head(channels, num_classes, make_norm("batch", channels, spatial_dims)))


class IResNetFlow(InvertibleSequential):
    def __init__(
        self,
        in_channels: int,
        num_levels: int = 3,
        num_blocks: int | Sequence[int] = 16,
        hidden_channels: int | Sequence[int] = 512,
        *,
        coefficient: float = 0.9,
        activation: str = "elu",
        logdet: str | LogDetEstimator = "truncated",
        num_terms: int | None = 5,
        eval_logdet: str | LogDetEstimator = "truncated",
        num_eval_terms: int | None = 20,
        keep_inputs: bool = True,
        spatial_dims: int = 2,
    ) -> None:
        channels = channels_per_level(in_channels, num_levels, spatial_dims)
        counts = per_dimension(num_blocks, num_levels, "num_blocks")
        widths = per_dimension(hidden_channels, num_levels, "hidden_channels")
        levels = []
        for level, (c, count, width) in enumerate(zip(channels, counts, widths, strict=True)):
            steps = residual_steps(c, count, lambda i: bottleneck(width, activation=activation, leading_activation=level + i > 0, spatial_dims=spatial_dims), keep_inputs=keep_inputs, coefficient=coefficient, logdet=logdet_estimator(logdet, num_terms), eval_logdet=logdet_estimator(eval_logdet, num_eval_terms))
            levels.append([*steps, ActNorm(c)])
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))
