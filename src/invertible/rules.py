"""Rules by which layers go back from output to input cheaper than by the default rule."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from .coupling import AdditiveCoupling
from .module import Inverse
from .orthogonal import OrthogonalMap, multiply
from .reversible import LeafBackward, backward_rule


def _shift_back(
    leaf: LeafBackward, layer: AdditiveCoupling, y: Tensor, grad: Tensor, sign: int
) -> tuple[Tensor, Tensor]:
    """Go back through ``y_changed = x_changed + sign · F(read)``.

    F is evaluated once, and that one value serves both the inversion and the gradient: 4 units of work for every 3
    of plain backpropagation, where inverting first and running forward again takes 5.
    """
    read, changed = layer.groups(y)
    grad_read, grad_changed = layer.groups(grad)
    with leaf.replay(), torch.enable_grad():
        x_read = read.detach().requires_grad_()
        shift = layer.subnet(x_read)
    # The gradient first: changing `changed` in place would invalidate `read`, which lies in the same memory.
    grad_read.add_(leaf.differentiate(shift, x_read, sign * grad_changed))
    changed.sub_(shift.detach(), alpha=sign)
    return y, grad


@backward_rule(AdditiveCoupling)
def additive_coupling(leaf: LeafBackward, layer: AdditiveCoupling, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _shift_back(leaf, layer, y, grad, sign=1)


@backward_rule(AdditiveCoupling, inverse=True)
def inverse_additive_coupling(leaf: LeafBackward, layer: Inverse, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _shift_back(leaf, cast(AdditiveCoupling, layer.module), y, grad, sign=-1)


@backward_rule(OrthogonalMap)
def orthogonal_map(leaf: LeafBackward, layer: OrthogonalMap, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """``x = Aᵀ y``, ``∇x = Aᵀ ∇y``, ``∇A = ∇y xᵀ``: no second forward pass."""
    with torch.enable_grad():
        matrices = layer.matrices()
    transposed, spatial = matrices.detach().mT, y.shape[2:]
    x_columns = multiply(transposed, layer.output_columns(y))
    grad_columns = layer.output_columns(grad)
    leaf.differentiate_parameters(matrices, multiply(grad_columns, x_columns.mT).sum(0))
    grad_x = layer.from_columns(multiply(transposed, grad_columns), spatial)
    return layer.from_columns(x_columns, spatial), grad_x


@backward_rule(OrthogonalMap, inverse=True)
def inverse_orthogonal_map(leaf: LeafBackward, layer: Inverse, y: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The same for ``y = Aᵀ x``: ``x = A y``, ``∇x = A ∇y``, ``∇A = x ∇yᵀ``."""
    mapping = cast(OrthogonalMap, layer.module)
    with torch.enable_grad():
        matrices = mapping.matrices()
    spatial = mapping.output_spatial(y)
    x_columns = multiply(matrices.detach(), mapping.to_columns(y))
    grad_columns = mapping.to_columns(grad)
    leaf.differentiate_parameters(matrices, multiply(x_columns, grad_columns.mT).sum(0))
    grad_x = multiply(matrices.detach(), grad_columns)
    return x_columns.reshape(y.shape[0], -1, *spatial), grad_x.reshape(y.shape[0], -1, *spatial)
