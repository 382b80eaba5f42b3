"""A cheap checksum of tensors' values. Unlike a version counter, it notices every kind of write."""

from collections.abc import Iterable

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bit_sums(tensors: Iterable[Tensor]) -> Tensor | None:
    """The sum of each tensor's bits, read as integers: (n,) of int64, the same on every thread count; None for none.

    Torch's fused optimizers and writes through ``.data`` do not change `Tensor._version`. The sum misses only changes
    that swap 64-bit words, or add to one what they take from another.
    """
    sums = [_as_integers(tensor.detach()).sum() for tensor in tensors]
    return torch.stack([value.to(sums[0].device) for value in sums]) if sums else None


def _as_integers(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    size = tensor.element_size()
    starts_at, num_bytes = tensor.storage_offset() * size, tensor.numel() * size
    if tensor.is_contiguous() and starts_at % 8 == 0 and num_bytes % 8 == 0:
        return tensor.view(-1).view(torch.int64)  # faster than smaller integers, which the sum widens one by one
    return tensor.view(_INTEGERS[size])
