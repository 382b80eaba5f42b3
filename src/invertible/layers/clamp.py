"""Soft clamps: they keep the scales of affine couplings between ``exp(−c)`` and ``exp(c)``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Clamp = Callable[[Tensor], Tensor]


def atan(u: Tensor) -> Tensor:
    """``2/π · atan(u)``, with FrEIA's rounded factor 0.636, so that weights trained there give the same outputs."""
    return 0.636 * torch.atan(u)


def sigmoid(u: Tensor) -> Tensor:
    """``2 sigmoid(u) − 1``."""
    return 2 * torch.sigmoid(u) - 1


def identity(u: Tensor) -> Tensor:
    """``u``: no clamp."""
    return u


CLAMPS: dict[str, Clamp] = {"atan": atan, "tanh": torch.tanh, "sigmoid": sigmoid, "none": identity}


def find_clamp(activation: str | Clamp) -> Clamp:
    """The clamp of that name (in any case: FrEIA writes ``ATAN``), or the given function from ℝ to (−1, 1).

    Raises:
        ValueError: for an unknown name.
    """
    if not isinstance(activation, str):
        return activation
    if activation.lower() not in CLAMPS:
        raise ValueError(
            f"expected clamp_activation to be one of {', '.join(CLAMPS)} or a function, got {activation!r}"
        )
    return CLAMPS[activation.lower()]
