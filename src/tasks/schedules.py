"""Learning-rate schedules over the steps of a run."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.05, final_fraction: float = 0.01
) -> LambdaLR:
    """Return a linear rise over the first steps, then half a cosine down to ``final_fraction`` of the learning rate.

    The factor depends on the step alone, so a resumed run may be longer than the run that it continues.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run.
        warmup_fraction: fraction of the steps over which the rate rises, in [0, 1).
        final_fraction: the rate at the end, as a fraction of the peak, in [0, 1].

    Raises:
        ValueError: if a fraction is out of its range.
    """
    if not 0 <= warmup_fraction < 1:
        raise ValueError(f"expected warmup_fraction in [0, 1), got {warmup_fraction}")
    if not 0 <= final_fraction <= 1:
        raise ValueError(f"expected final_fraction in [0, 1], got {final_fraction}")
    warmup_steps = round(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
