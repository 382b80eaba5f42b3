"""Places in a graph without their numbers, and gradients of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge


class _Cast(torch.autograd.Function):
    """The node of an output in another precision, without its numbers."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = output.dtype
        return output.new_zeros((), dtype=dtype).expand(output.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None


@dataclass(frozen=True)
class Recorded:
    """The place of an output in the graph, None if it has no graph, without its numbers, which may be freed."""

    edge: GradientEdge | None
    dtype: torch.dtype

    @classmethod
    def of(cls, output: Tensor | Recorded) -> Recorded:
        if isinstance(output, Recorded):
            return output
        return cls(get_gradient_edge(output) if output.requires_grad else None, output.dtype)

    @classmethod
    def taking(cls, dtype: torch.dtype, output: Tensor) -> Recorded:
        """That of an output whose gradient comes in this precision; autograd casts it, and frees the copy early."""
        with torch.enable_grad():
            return cls.of(output if output.dtype == dtype else _Cast.apply(output, dtype))


def differentiated(
    outputs: Sequence[Tensor] | Sequence[GradientEdge], inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """The gradients, outside of autocast, as in any backward pass: products of float32 matrices stay in float32."""
    with torch.autocast(grads[0].device.type, enabled=False):
        return torch.autograd.grad(outputs, inputs, grads, allow_unused=True)
