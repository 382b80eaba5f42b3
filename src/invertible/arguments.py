"""Checks of options and shapes that many layers share."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor

Entry = TypeVar("Entry")


def chosen(option: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry that the value of an option names.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in entries:
        raise ValueError(f"expected {option} to be one of {', '.join(entries)}, got {name!r}")
    return entries[name]


def per_dimension(value: int | Sequence[int], spatial_dims: int, name: str) -> tuple[int, ...]:
    """One positive integer per spatial dimension, from one for all of them or a sequence.

    Raises:
        ValueError: for another length, numbers below 1, or another number of dimensions than 1, 2 or 3.
    """
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"expected spatial_dims to be 1, 2 or 3, got {spatial_dims}")
    values = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(values) != spatial_dims or min(values) < 1:
        raise ValueError(f"expected {name} to be {spatial_dims} positive integers or one, got {value}")
    return values


def check_channels(x: Tensor, channels: int) -> None:
    """Raise a `ValueError` unless ``x`` is a state of shape (B, channels, *spatial)."""
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"expected {channels} channels, got {x.shape[1] if x.ndim > 1 else 'no such dimension'}")


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,), shaped to be broadcast over a state (B, C, *spatial).

    Raises:
        ValueError: for a state with another number of channels.
    """
    check_channels(x, len(values))
    return values.reshape(-1, *[1] * (x.ndim - 2))
