"""Activation normalisation: an affine map per channel, started from the data."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..arguments import check_channels, per_channel
from ..log_determinants import sum_over_voxels
from ..module import InvertibleModule

# A channel with a smaller deviation is treated as constant: it is centred and not scaled. So is one whose numbers
# differ by rounding errors alone; the second bound is in rounding errors of the mean.
MIN_DEVIATION = 1e-6
MIN_ROUNDING_ERRORS = 2


class ActNorm(InvertibleModule):
    """``y = exp(s) x + b`` with one s and one b per channel (Kingma and Dhariwal, 2018).

    The first batch in training mode sets s and b such that the output has mean 0 and variance 1 per channel; if the
    inverse runs first, they are set for the inverse's output. Batches in evaluation mode do not count. With
    torch.distributed, the statistics are taken over the batches of all processes, so that all start with the same
    values; every process must take part in that first batch. A checkpoint stores s, b, and whether they were set.

    State (B, C, *spatial); ``log|det dy/dx| = Σ s`` times the number of voxels.

    Args:
        channels: number of channels C.

    Raises:
        ValueError: for another number of channels, or a first batch that is not finite.

    Example:
        >>> y = ActNorm(4)(3 + 2 * torch.randn(8, 4, 16, 16))  # the first batch sets s and b
        >>> y.mean().abs() < 1e-5, (y.std() - 1).abs() < 1e-2
        (tensor(True), tensor(True))
    """

    initialized: Tensor
    buffers_are_constants = True  # once set from the data

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        # 1 once they are set. A real number: torch.optim.swa_utils subtracts buffers, which flags do not allow.
        self.register_buffer("initialized", torch.zeros(()))
        # The buffer's last known value: reading it at each step would make the CPU wait for the GPU.
        self._is_ready = False

    def forward(self, x: Tensor) -> Tensor:
        if self._awaits_data() and (statistics := self._statistics(x)):
            mean, log_deviation = statistics
            self._initialise(-log_deviation, -mean * torch.exp(-log_deviation))
        return x * per_channel(self.log_scale.exp(), x) + per_channel(self.shift, x)

    def inverse(self, y: Tensor) -> Tensor:
        if self._awaits_data() and (statistics := self._statistics(y)):
            mean, log_deviation = statistics
            self._initialise(log_deviation, mean)
        return (y - per_channel(self.shift, y)) * per_channel((-self.log_scale).exp(), y)

    def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self(x)
        return y, sum_over_voxels(self.log_scale, x)

    def _awaits_data(self) -> bool:
        if not self.training or self._is_ready:
            return False
        self._is_ready = bool(self.initialized)
        return not self._is_ready

    @torch.no_grad()
    def _initialise(self, log_scale: Tensor, shift: Tensor) -> None:
        self.log_scale.copy_(log_scale)
        self.shift.copy_(shift)
        self.initialized.fill_(1)
        self._is_ready = True

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and log of the standard deviation per channel, over all processes; None if these hold no sample."""
        check_channels(x, len(self.shift))
        columns = x.detach().to(torch.promote_types(x.dtype, torch.float32)).transpose(0, 1).flatten(1)  # (C, B·N)
        count = _over_processes(columns.new_tensor(float(columns.shape[1])))
        if count == 0:
            return None
        mean = _over_processes(columns.sum(1)) / count
        mean = mean + _over_processes((columns - mean[:, None]).sum(1)) / count  # less the rounding errors of the sum
        variance = _over_processes((columns - mean[:, None]).square().sum(1)) / count
        if not bool(torch.isfinite(variance).all()):
            raise ValueError("expected a finite first batch, got infinite or undefined statistics")
        deviation = variance.sqrt()
        smallest = (MIN_ROUNDING_ERRORS * torch.finfo(mean.dtype).eps * mean.abs()).clamp(min=MIN_DEVIATION)
        return mean, torch.where(deviation > smallest, deviation, torch.ones_like(deviation)).log()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_ready = False  # the buffer may have changed: read it again

    def extra_repr(self) -> str:
        return f"{self.shift.shape[0]}"


def _over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, where there are several."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
    return value
