"""Upper bounds of the operator norms of linear layers and convolutions, from their Fourier transforms."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

LinearLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def fourier_norm_bound(layer: LinearLayer, spatial_size: Sequence[int], *, weight: Tensor | None = None) -> float:
    """Upper bound of a layer's operator norm on images of ``spatial_size``: ``max_ω |Ŵ(ω)|₂`` (Sedghi et al., 2019).

    A circular convolution with stride 1 is block diagonal in the Fourier basis, so this is its norm. With zero padding
    the convolution is part of a circular one on an image enlarged by the kernel's reach, and a strided one is part of
    that with stride 1: the norm of the whole bounds that of the part. For ``Linear`` it is the norm.

    Args:
        layer: the map, without its bias.
        spatial_size: size of the input per spatial dimension; () for ``Linear``.
        weight: to be used instead of the layer's own.

    Raises:
        ValueError: for a padding mode other than zeros and circular, or a circular padding that enlarges the image.

    Example:
        >>> conv = torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False)
        >>> _ = torch.nn.init.constant_(conv.weight, 1 / 9)  # a mean keeps constants
        >>> round(fourier_norm_bound(conv, [8, 8]), 4)
        1.0
    """
    weight = (layer.weight if weight is None else weight).detach().double()
    if isinstance(layer, nn.Linear):
        return torch.linalg.matrix_norm(weight, ord=2).item()
    reach = [(k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    if layer.padding_mode == "circular":
        if any(sum(pair) > r for pair, r in zip(_padding(layer, reach), reach, strict=True)):
            raise ValueError(f"expected circular padding to keep the spatial size or reduce it, got {layer}")
        # A multiple of the size has all its frequencies, and holds the whole kernel.
        torus = [n * math.ceil((r + 1) / n) for n, r in zip(spatial_size, reach, strict=True)]
    elif layer.padding_mode == "zeros":
        torus = [n + r for n, r in zip(spatial_size, reach, strict=True)]
    else:
        raise ValueError(f"expected padding_mode zeros or circular, got {layer.padding_mode!r}")
    kernel = weight.new_zeros(*weight.shape[:2], *(r + 1 for r in reach))
    kernel[tuple(slice(None, None, step) for step in (1, 1, *layer.dilation))] = weight
    spectrum = torch.fft.rfftn(kernel, s=torus, dim=list(range(2, kernel.ndim)))
    blocks = spectrum.unflatten(0, (layer.groups, -1)).movedim((1, 2), (-2, -1))  # (groups, frequencies …, C_out, C_in)
    return torch.linalg.matrix_norm(blocks, ord=2).max().item()


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, reach: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and after, per spatial dimension."""
    if layer.padding == "same":
        return [(r // 2, r - r // 2) for r in reach]
    if layer.padding == "valid":
        return [(0, 0)] * len(reach)
    return [(int(p), int(p)) for p in layer.padding]
