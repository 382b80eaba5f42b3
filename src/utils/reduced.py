"""Numbers reduced over all processes before anything reads them."""

from collections.abc import Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

Reduction = Literal["mean", "max"]


def reduced(module: pl.LightningModule, values: Mapping[str, Tensor | float], by: Reduction) -> dict[str, Tensor]:
    """Return numbers reduced over all processes, in single precision at least, by one exchange for all of them.

    Every process must call this at the same point of the run.

    Args:
        module: attached to a trainer; without one the numbers are returned as they are.
        values: scalars by name, the same names in each process.
        by: the reduction.
    """
    scalars = [torch.as_tensor(value, device=module.device).detach() for value in values.values()]
    dtype = torch.float64 if any(scalar.dtype == torch.float64 for scalar in scalars) else torch.float32
    stacked = torch.stack([scalar.to(dtype) for scalar in scalars])
    try:
        strategy = module.trainer.strategy
    except RuntimeError:  # not attached to a trainer
        everyones = stacked[None]  # (processes, values)
    else:
        everyones = strategy.all_gather(stacked).reshape(-1, len(stacked))
    # Not the backend's own reductions: gloo's maximum loses a NaN.
    found = everyones.mean(dim=0) if by == "mean" else everyones.amax(dim=0)
    return dict(zip(values, found.unbind(), strict=True))


def log_reduced(
    module: pl.LightningModule, values: Mapping[str, Tensor | float], by: Reduction, **options: Any
) -> dict[str, Tensor]:
    """Log numbers reduced over all processes, and return them.

    With ``sync_dist=True`` Lightning reduces an epoch's number when it is first read. If only the first process reads
    it, to show it, that process waits for the others forever.

    The ``options`` are those of `LightningModule.log`.
    """
    found = reduced(module, values, by)
    for name, value in found.items():
        module.log(name, value, **options)
    return found
