"""Checks of options and shapes that layers, networks and scans share."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

Entry = TypeVar("Entry")


def chosen(option: str, name: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry that the value of an option names.

    Raises:
        ValueError: for an unknown name.
    """
    check_choice(option, name, entries)
    return entries[name]


def check_choice(option: str, value: object, known: Collection[str]) -> None:
    """Raise a `ValueError` unless the value of an option is one of the known names."""
    if value not in known:
        raise ValueError(f"expected {option} to be one of {', '.join(known)}, got {value!r}")


def check_channel_number(channels: object) -> None:
    """Raise a `TypeError` unless this is a number: FrEIA's layers take shapes in its place."""
    if not isinstance(channels, int):
        raise TypeError(f"expected a number of channels, got {channels!r}")


def check_positive(**numbers: int) -> None:
    """Raise a `ValueError` unless each option is at least 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"expected {name} >= 1, got {number}")


def check_spatial_dims(spatial_dims: int) -> int:
    """``spatial_dims``, or a `ValueError` unless it is 1, 2 or 3."""
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"expected spatial_dims to be 1, 2 or 3, got {spatial_dims}")
    return spatial_dims


def same_padding(kernel_size: int) -> int:
    """The padding with which a convolution keeps the spatial size, or a `ValueError` unless the kernel size is odd."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
    return kernel_size // 2


def per_dimension(value: int | Sequence[int], spatial_dims: int, name: str) -> tuple[int, ...]:
    """One positive integer per spatial dimension, from one for all of them or a sequence.

    Args:
        value: one number for all dimensions, or one for each.
        spatial_dims: their number: 1, 2 or 3.
        name: of the option, for the message.

    Raises:
        ValueError: for another length, numbers below 1, or another number of dimensions than 1, 2 or 3.

    Example:
        >>> per_dimension(2, spatial_dims=3, name="stride")
        (2, 2, 2)
    """
    check_spatial_dims(spatial_dims)
    values = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(values) != spatial_dims or min(values) < 1:
        raise ValueError(f"expected {name} to be {spatial_dims} positive integers or one, got {value}")
    return values


def check_channels(x: Tensor, channels: int, spatial_dims: int | None = None) -> None:
    """Raise a `ValueError` unless ``x`` is a state (B, channels, *spatial), of so many spatial axes if given."""
    if not isinstance(x, Tensor):
        raise ValueError(f"expected a state of one tensor with {channels} channels, got {type(x).__name__}")
    if spatial_dims is not None and x.ndim != 2 + spatial_dims:
        axes = {1: "L", 2: "H, W", 3: "D, H, W"}[spatial_dims]
        raise ValueError(f"expected shape (B, {channels}, {axes}), got {tuple(x.shape)}")
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"expected {channels} channels, got {x.shape[1] if x.ndim > 1 else 'no such dimension'}")


def as_precise_as(state: Tensor, values: Tensor) -> Tensor:
    """Values in the precision of a state.

    Raises:
        ValueError: for a state of integers, such as an image as it was read, to which the values would be rounded.
    """
    check_real(state)
    return values.to(state.dtype)


def check_real(state: Tensor) -> None:
    """Raise a `ValueError` for a state of integers, such as an image as it was read."""
    if not state.is_floating_point():
        raise ValueError(f"expected a state of real numbers, got {state.dtype}")


def check_halvings(x: Tensor, num_levels: int) -> None:
    """Raise a `ValueError` unless the spatial size of a state (B, C, *spatial) can be halved on each level."""
    divisor = 2**num_levels
    if any(size % divisor for size in x.shape[2:]):
        raise ValueError(
            f"expected a spatial size divisible by 2^{num_levels} = {divisor} for {num_levels} levels, "
            f"got {tuple(x.shape[2:])}"
        )


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,), shaped to be broadcast over a state (B, C, *spatial).

    Raises:
        ValueError: for a state with another number of channels.
    """
    check_channels(x, len(values))
    return values.reshape(-1, *[1] * (x.ndim - 2))
