"""The largest memory that a run needed."""

import math
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from src.runs.of_training import OfTraining
from src.utils.reduced import log_reduced


class PeakMemory(OfTraining):
    """Logs ``memory/peak_gib`` at the end of each training epoch.

    On CUDA this is the largest amount that torch's allocator held since training began, on the CPU the high-water mark
    of the process, see `peak_resident_bytes`. In a process that has trained before, as the later jobs of a multirun, it
    is that since this run began; where the system does not allow to set the mark back, and this run stays below what
    others needed before it, it is NaN, and None in the summary. A run that is resumed on the other kind of device
    counts from there.
    """

    _has_others: ClassVar[bool] = False

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._kind: str | None = None
        self._of_others = forget_peak() if PeakMemory._has_others else 0
        PeakMemory._has_others = True

    def state_dict(self) -> dict[str, Any]:
        return {"peak_bytes": self.peak_bytes, "kind": self._kind}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.peak_bytes, self._kind = state_dict["peak_bytes"], state_dict.get("kind")

    def summary(self, trainer: pl.Trainer) -> dict[str, Any]:
        """Return the peak and its kind."""
        return {"peak_memory_bytes": self.peak_bytes or None, "peak_memory_kind": _kind(trainer.strategy.root_device)}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what was allocated before training, and the peak of an earlier one on the other kind of device."""
        kind = _kind(pl_module.device)
        if self._kind not in (None, kind):
            self.peak_bytes = 0
        self._kind = kind
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the peak so far."""
        cuda = pl_module.device.type == "cuda"
        now = torch.cuda.max_memory_allocated(pl_module.device) if cuda else peak_resident_bytes()
        if cuda or now > self._of_others:
            self.peak_bytes = max(self.peak_bytes, now)
        worst = log_reduced(pl_module, {"memory/peak_gib": self.peak_bytes / 2**30 or math.nan}, "max")
        if trainer.world_size > 1:
            self.peak_bytes = int(worst["memory/peak_gib"].nan_to_num(0.0) * 2**30)


def _kind(device: torch.device) -> str:
    return "cuda_allocated" if device.type == "cuda" else "process_resident"


def peak_resident_bytes() -> int:
    """Return the high-water mark of the resident set of this process, as the kernel counts it.

    It includes Python, the libraries and the data, and never falls but by `forget_peak`. Linux and macOS only.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux getrusage would start from the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def forget_peak() -> int:
    """Set the high-water mark back to what is resident now; return the mark that stays where the system refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_resident_bytes()
    return 0
