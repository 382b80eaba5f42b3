"""i-ResNet: invertible residual networks, as classifiers and as flows (Behrmann et al., 2019; Chen et al., 2019)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from ..invertible import ActNorm, Checkerboard, InvertibleModule, LogDetEstimator, logdet_estimator, per_dimension
from ..invertible import Sequential as InvertibleSequential
from .blocks import check_spatial_dims, make_norm
from .injective_padding import InjectivePadding
from .invertible_classifier import InvertibleClassifier, pooled_head
from .iresnet_blocks import residual_steps
from .multiscale import channels_per_level, multiscale


class IResNetClassifier(InvertibleClassifier):
    """``logits = head(f(pad(x)))``, f residual blocks ``x + g(x)`` at ever coarser resolutions (section 4.1).

    Zero channels are appended to the image; between two scales, space-to-depth; the head is batch norm, ReLU, the mean
    over space, linear. The defaults are the paper's network for CIFAR-10.

    `inverse` iterates to a fixed point in each block, to rounding error: it finds x to 1e-13 in float64 and to 1e-5 in
    float32 where x is of order 1, in some 10 (freshly started) to 100 (at the bound of the coefficient) evaluations
    of each block in float32, twice as many in float64.

    The blocks' backward pass under ``reversible`` would iterate likewise. With ``keep_inputs`` it starts from each
    block's input instead, which it saves: one state per block, where ``stored`` saves all that is inside g. See
    `IResNetFlow`.

    Args:
        in_channels: of the images.
        num_classes: of the logits.
        num_blocks: per scale.
        hidden_channels: inside g, one number or one per scale.
        padded_channels: channels after appending zeros to the image; None: no padding.
        coefficient: c, the bound of each convolution; ``Lip(g) ≤ c³``.
        activation: ``elu`` or ``lipswish``.
        actnorm: whether an `ActNorm` stands before each block.
        keep_inputs: see above; False saves the last features only.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, or an image that cannot be halved between the scales.
    """

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
        if not num_blocks:
            raise ValueError("expected num_blocks of at least one scale, got none")
        counts = per_dimension(num_blocks, len(num_blocks), "num_blocks")
        widths = per_dimension(hidden_channels, len(counts), "hidden_channels")
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels
        parts: list[InvertibleModule] = []
        for scale, (count, width) in enumerate(zip(counts, widths, strict=True)):
            if scale > 0:
                parts.append(Checkerboard(2, spatial_dims=spatial_dims))
                channels *= 2**spatial_dims
            parts += residual_steps(
                channels,
                count,
                width,
                is_first=scale == 0,
                activation=activation,
                actnorm=actnorm,
                keep_inputs=keep_inputs,
                spatial_dims=check_spatial_dims(spatial_dims),
                coefficient=coefficient,
            )
        norm = make_norm("batch", channels, spatial_dims)
        assert norm is not None
        super().__init__(padding, InvertibleSequential(*parts), pooled_head(channels, num_classes, norm))


class IResNetFlow(InvertibleSequential):
    """A `multiscale` flow of residual blocks, an `ActNorm` before each: (B, C, *spatial) to a latent of the same shape.

    The defaults are the paper's flow for CIFAR-10. Residual Flows have ``logdet='roulette'``, ``coefficient=0.98`` and
    ``activation='lipswish'``. The paper's Gaussian prior has a learned mean and deviation per latent number; here an
    `ActNorm` closes each level, which learns them per channel for a standard normal prior.

    Training needs a log-determinant with cheap gradients, evaluation one that can be trusted: a truncated series with n
    terms is off by up to ``N ℓ^{n+1} / ((n + 1)(1 − ℓ))`` per block of N numbers, ``ℓ = c³``. With c = 0.9 that is
    0.09 N nats for 5 terms and 2e-4 N for 20.

    ``backprop``: inverting a block takes tens of evaluations. With ``keep_inputs``, ``reversible`` saves each block's
    input, C channels where ``stored`` saves several times ``hidden_channels``, and inverts the cheap rest only. The
    CPU time of a step, for 2 levels of 4 blocks with 32 hidden channels on 28×28 and 5 terms, fresh weights: ``stored``
    1, ``reversible`` 1.5, without ``keep_inputs`` 2.6, which grows with training; ``checkpoint`` 2.9, since it
    evaluates a block again for each of the terms. ``reversible`` with ``keep_inputs`` is what to choose when memory is
    short.

    Args:
        in_channels: number of channels C.
        num_levels: how often the state is squeezed.
        num_blocks: per level, one number or one for each.
        hidden_channels: inside g, one number or one per level.
        coefficient: c, the bound of each convolution; ``Lip(g) ≤ c³``.
        activation: ``elu`` or ``lipswish``.
        logdet: in training: ``exact`` (for small images), ``truncated``, ``roulette``, or an estimator.
        num_terms: of the truncated series, or those that roulette always computes; None for the estimator's default.
        eval_logdet: as logdet, in evaluation mode.
        num_eval_terms: as num_terms, in evaluation mode.
        keep_inputs: see above.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for options outside these, or a size that 2 to the number of levels does not divide.
    """

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
        levels: list[list[InvertibleModule]] = []
        for level, (count, width) in enumerate(zip(counts, widths, strict=True)):
            steps = residual_steps(
                channels[level],
                count,
                width,
                is_first=level == 0,
                activation=activation,
                keep_inputs=keep_inputs,
                spatial_dims=spatial_dims,
                coefficient=coefficient,
                logdet=logdet_estimator(logdet, num_terms),
                eval_logdet=logdet_estimator(eval_logdet, num_eval_terms),
            )
            levels.append([*steps, ActNorm(channels[level])])
        super().__init__(OrderedDict(levels=multiscale(levels, in_channels, spatial_dims=spatial_dims)))
