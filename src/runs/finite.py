"""States of a training from which it makes sense to continue."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.utils.nested import dotted


class NonFiniteStateError(ArithmeticError):
    """Weights, averages or moments of a training are NaN or infinite."""


def check_finite(checkpoint: Mapping[str, Any], net: nn.Module, everywhere: Callable[[bool], bool] = bool) -> None:
    """Check that a checkpoint's parameters and optimizer states are finite and its buffers no NaN.

    Buffers may be infinite, as masks of logits are.

    Args:
        checkpoint: Lightning's, before it is written.
        net: whose parameters the entries of "state_dict" are.
        everywhere: tells whether a condition holds in all processes of a distributed run, so that they end together.

    Raises:
        NonFiniteStateError: naming the first tensor that is not, in this process.
    """
    parameters = {name for name, _ in net.named_parameters()}
    bad = None
    for key in ("state_dict", "current_model_state", "optimizer_states"):  # the second one is the EMA's
        for name, tensor in dotted(checkpoint.get(key), lists=True):
            may_be_infinite = key != "optimizer_states" and name not in parameters
            if bad is None and isinstance(tensor, Tensor) and not _is_good(tensor, may_be_infinite):
                bad = f"{name} of {key}" if key != "state_dict" else name
    if not everywhere(bad is None):
        raise NonFiniteStateError(
            f"expected finite values after step {checkpoint['global_step']}, got NaN or infinity in "
            f"{bad or 'another process'}. The last update caused them, and the checkpoint was not saved. Possible "
            "remedies: a smaller task.optimizer.lr, a smaller trainer.gradient_clip_val, trainer.precision=32-true"
        )


def _is_good(tensor: Tensor, may_be_infinite: bool) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return not bool(torch.isnan(tensor).any()) if may_be_infinite else bool(torch.isfinite(tensor).all())
