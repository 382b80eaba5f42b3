"""Invertible channel mixing."""

from typing import Any

import torch

from .orthogonal import OrthogonalMap, initial_matrices
from .orthogonal_matrices import OrthogonalMatrices


class OrthogonalMixing(OrthogonalMap):
    """``y = A x`` over the channels of each voxel, with a learnable orthogonal C×C matrix A.

    Args:
        channels: number of channels C of the state (B, C, *spatial).
        method: parametrisation: ``exp``, ``cayley`` or ``householder``.
        init: ``identity``, ``random``, or an orthogonal matrix (C, C).
        learnable: whether A is trained.
        num_reflections: for ``householder``.

    Raises:
        ValueError: for unknown options or another number of channels.

    Example:
        >>> layer = OrthogonalMixing(4, method="cayley", init="random")
        >>> layer(torch.randn(2, 4, 8, 8)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        method: str = "exp",
        init: Any = "identity",
        learnable: bool = True,
        num_reflections: int | None = None,
    ) -> None:
        initial = initial_matrices(init, 1, channels, {"identity": torch.eye(channels)}, random="random")
        initial = initial.to(torch.get_default_dtype())
        super().__init__(OrthogonalMatrices(initial, method, learnable=learnable, num_reflections=num_reflections))
