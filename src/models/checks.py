"""Checks of options and inputs that the networks share. Each raises ValueError."""

from collections.abc import Collection

from torch import Tensor


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """The option called ``name`` is one of the known names."""
    if value not in known:
        raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {value!r}")


def check_positive(**numbers: int) -> None:
    """Each option is at least 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"expected {name} >= 1, got {number}")


def check_spatial_dims(spatial_dims: int) -> int:
    """``spatial_dims``, which is 1, 2 or 3."""
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"expected spatial_dims to be 1, 2 or 3, got {spatial_dims}")
    return spatial_dims


def same_padding(kernel_size: int) -> int:
    """The padding with which a convolution keeps the spatial size; the kernel size is odd."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
    return kernel_size // 2


def check_halvings(x: Tensor, num_levels: int) -> None:
    """The spatial size of a state (B, C, *spatial) can be halved on each level."""
    divisor = 2**num_levels
    if any(size % divisor for size in x.shape[2:]):
        raise ValueError(
            f"expected a spatial size divisible by 2^{num_levels} = {divisor} for {num_levels} levels, "
            f"got {tuple(x.shape[2:])}"
        )
