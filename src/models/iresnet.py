"""i-ResNet: invertible residual networks, as classifiers and as flows (Behrmann et al., 2019; Chen et al., 2019)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..invertible import (
    ActNorm,
    Checkerboard,
    InvertibleModule,
    LipSwish,
    LogDetEstimator,
    ResidualBlock,
    SubnetConstructor,
    keep_input,
    logdet_estimator,
    per_dimension,
    settle_together,
)
from ..invertible import Sequential as InvertibleSequential
from ..invertible.arguments import check_positive, check_spatial_dims, chosen
from .blocks import CONVOLUTIONS
from .invertible_classifier import InjectivePadding, InvertibleClassifier, pooled_head
from .multiscale import multiscale, squeezed_channels

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"elu": nn.ELU, "lipswish": LipSwish}


class IResNetClassifier(InvertibleClassifier):
    """``logits = head(f(pad(x)))``, f residual blocks ``x + g(x)`` at ever coarser resolutions (section 4.1).

    Zero channels are appended to the image. Space-to-depth joins two scales. The head is batch norm, ReLU, the mean
    over space, linear. The defaults are the paper's network for CIFAR-10.

    `inverse` iterates to a fixed point in each block. It finds x of order 1 to 1e-13 in float64 and to 1e-5 in
    float32. In float32 that takes some 10 evaluations of a block (fresh weights) to 100 (at the bound of the
    coefficient), and twice as many in float64.

    The backward pass under ``reversible`` would iterate too. With ``keep_inputs`` it starts from each block's saved
    input instead: one state per block, where ``stored`` saves everything inside g. See `IResNetFlow`.

    Args:
        in_channels, num_classes: of images (B, in_channels, *spatial) and logits (B, num_classes).
        num_blocks: per scale.
        hidden_channels: inside g, one number or one per scale.
        padded_channels: channels after appending zeros to the image; None appends none.
        coefficient: c, the bound of each convolution; ``Lip(g) ≤ c³``.
        activation: ``elu`` or ``lipswish``.
        actnorm: whether an `ActNorm` precedes each block.
        keep_inputs: False saves only the last features.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, or an image that cannot be halved between the scales.

    Source: J. Behrmann, W. Grathwohl, R.T.Q. Chen, D. Duvenaud, J.-H. Jacobsen: Invertible residual networks,
    arXiv:1811.00995.

    Example:
        >>> net, x = IResNetClassifier(1, 10, (1, 1), hidden_channels=4, padded_channels=2), torch.randn(2, 1, 8, 8)
        >>> net(x).shape, net.inverse(net.encode(x)).shape
        (torch.Size([2, 10]), torch.Size([2, 1, 8, 8]))
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
            raise ValueError("expected num_blocks for at least one scale, got none")
        counts = per_dimension(num_blocks, len(num_blocks), "num_blocks")
        widths = per_dimension(hidden_channels, len(counts), "hidden_channels")
        padding = InjectivePadding(in_channels, padded_channels)
        channels = padding.channels
        parts: list[InvertibleModule] = []
        for scale, (count, width) in enumerate(zip(counts, widths, strict=True)):
            if scale > 0:
                parts.append(Checkerboard(2, spatial_dims=spatial_dims))
                channels *= 2**spatial_dims
            parts += _residual_steps(
                channels,
                count,
                width,
                is_first=scale == 0,
                activation=activation,
                actnorm=actnorm,
                keep_inputs=keep_inputs,
                spatial_dims=spatial_dims,
                coefficient=coefficient,
            )
        head = pooled_head(channels, num_classes, "batch", spatial_dims)
        super().__init__(padding, InvertibleSequential(*parts), head)
        settle_together(self)


class IResNetFlow(InvertibleSequential):
    """A `multiscale` flow of residual blocks, an `ActNorm` before each: (B, C, *spatial) to a latent of the same shape.

    The defaults are the paper's flow for CIFAR-10. Residual Flows have ``coefficient=0.98``, ``activation='lipswish'``
    and unbiased log-determinants, ``logdet='roulette', num_terms=2, eval_logdet='roulette', num_eval_terms=20``. The
    paper's Gaussian prior has a learned mean and deviation per latent number. Here an `ActNorm` at the end of each
    level learns them per channel for a standard normal prior.

    Training needs a log-determinant with cheap gradients, evaluation one that can be trusted: a truncated series with n
    terms is off by up to ``N ℓ^{n+1} / ((n + 1)(1 − ℓ))`` per block of N numbers, ``ℓ = c³``. With c = 0.9 that is
    0.09 N nats for 5 terms and 2e-4 N for 20; with c = 0.98, 2 N and 0.23 N, too much for an evaluation.

    Inverting a block takes tens of evaluations. With ``keep_inputs``, ``reversible`` saves each block's input of C
    channels, where ``stored`` saves several times ``hidden_channels``, and inverts only the cheap layers between. The
    CPU time of a step, for 2 levels of 4 blocks with 32 hidden channels on 28×28, 5 terms and fresh weights, is 1 for
    ``stored``, 1.5 for ``reversible`` and 2.6 without ``keep_inputs``, which grows with training. ``checkpoint``
    takes 2.9, since it evaluates a block again for each term.

    Args:
        in_channels: number of channels C.
        num_levels: how often the state is squeezed.
        num_blocks: one number or one per level.
        hidden_channels: inside g, one number or one per level.
        coefficient: c, the bound of each convolution; ``Lip(g) ≤ c³``.
        activation: ``elu`` or ``lipswish``.
        logdet, eval_logdet: in training and in evaluation mode: ``exact`` (for small images), ``truncated``,
            ``roulette``, or an estimator.
        num_terms, num_eval_terms: of the truncated series, or those that roulette always computes; None for the
            estimator's default.
        keep_inputs: False saves only the latent.
        spatial_dims: 1, 2 or 3.

    Raises:
        ValueError: for an option out of range, or a spatial size that 2^num_levels does not divide.

    Source: Behrmann et al., arXiv:1811.00995; Chen et al., arXiv:1906.02735.

    Example:
        >>> flow = IResNetFlow(1, num_levels=1, num_blocks=1, hidden_channels=4, num_terms=2)
        >>> z, logdet = flow.forward_and_logdet(torch.randn(2, 1, 8, 8))  # (2, 1, 8, 8), (2,)
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
        channels = squeezed_channels(in_channels, num_levels, spatial_dims)
        counts = per_dimension(num_blocks, num_levels, "num_blocks")
        widths = per_dimension(hidden_channels, num_levels, "hidden_channels")
        levels: list[list[InvertibleModule]] = []
        for level, (count, width) in enumerate(zip(counts, widths, strict=True)):
            steps = _residual_steps(
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
        settle_together(self)


def contraction(
    hidden_channels: int, *, activation: str = "elu", leading_activation: bool = True, spatial_dims: int = 2
) -> SubnetConstructor:
    """Constructor of a residual block's g: convolutions with kernel sizes 3, 1 and 3, an activation before each.

    `ResidualBlock` bounds each convolution by its coefficient c, hence ``Lip(g) ≤ c³``.

    Args:
        hidden_channels: between the convolutions.
        activation: ``elu`` (Behrmann et al., 2019) or ``lipswish`` (Chen et al., 2019).
        leading_activation: whether the first convolution has an activation before it.

    Raises:
        ValueError: for an option out of range.
    """
    check_positive(hidden_channels=hidden_channels)
    activate = chosen("activation", activation, ACTIVATIONS)
    convolution = CONVOLUTIONS[check_spatial_dims(spatial_dims)]

    def construct(dims_in: int, dims_out: int) -> nn.Module:
        layers = [
            activate(),
            convolution(dims_in, hidden_channels, 3, padding=1),
            activate(),
            convolution(hidden_channels, hidden_channels, 1),
            activate(),
            convolution(hidden_channels, dims_out, 3, padding=1),
        ]
        return nn.Sequential(*layers if leading_activation else layers[1:])

    return construct


def _residual_steps(
    channels: int,
    num_blocks: int,
    hidden_channels: int,
    *,
    is_first: bool = False,
    activation: str = "elu",
    actnorm: bool = True,
    keep_inputs: bool = True,
    spatial_dims: int = 2,
    **options: Any,
) -> list[InvertibleModule]:
    """The residual blocks of one resolution, an `ActNorm` before each; ``options`` are those of every `ResidualBlock`.

    The network's very first block begins with its convolution, since an activation would distort the image itself.
    """
    steps: list[InvertibleModule] = []
    for i in range(num_blocks):
        leading = not (is_first and i == 0)
        g = contraction(hidden_channels, activation=activation, leading_activation=leading, spatial_dims=spatial_dims)
        block = ResidualBlock(channels, g, **options)
        keep_input(block, keep_inputs)
        steps += [ActNorm(channels), block] if actnorm else [block]
    return steps
