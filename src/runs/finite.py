"""States of a training that are worth going on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteStateError(ArithmeticError):
    """Weights, averages or moments of a training are NaN or infinite."""


def check_finite(checkpoint: Mapping[str, Any], net: nn.Module, everywhere: Callable[[bool], bool] = bool) -> None:
    """Check that a checkpoint's parameters and optimizer states are finite and its buffers no NaN.

    Buffers may be infinite, as masks of logits are.

    Args:
        checkpoint: Lightning's, before it is written.
        net: whose parameters the entries of "state_dict" are.
        everywhere: whether something holds in all processes of a distributed run, which end together then.

    Raises:
        NonFiniteStateError: naming the first tensor that is not, in this process.
    """
    parameters = {name for name, _ in net.named_parameters()}
    bad = None
    for key in ("state_dict", "current_model_state", "optimizer_states"):  # the second one is the EMA's
        for name, tensor in _tensors(checkpoint.get(key)):
            may_be_infinite = key != "optimizer_states" and name not in parameters
            if bad is None and not _is_good(tensor, may_be_infinite):
                bad = f"{name} of {key}" if key != "state_dict" else name
    if not everywhere(bad is None):
        raise NonFiniteStateError(
            f"expected a finite state after step {checkpoint['global_step']}, got {bad or 'another one'} with NaN or "
            "infinity: the latest update has ruined it, and it is not saved. Likely remedies: a smaller "
            "task.optimizer.lr, a smaller trainer.gradient_clip_val, trainer.precision=32-true"
        )


def _is_good(tensor: Tensor, may_be_infinite: bool) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return not bool(torch.isnan(tensor).any()) if may_be_infinite else bool(torch.isfinite(tensor).all())


def _tensors(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested containers with their places as dotted names."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for index, value in enumerate(content):
            yield from _tensors(value, f"{name}.{index}" if name else str(index))
