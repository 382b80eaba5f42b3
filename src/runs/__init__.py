"""The run folder: making, reading and resuming it, and its network in Python (`load_run`)."""

from typing import TYPE_CHECKING

from src.utils.late_imports import importing_late

if TYPE_CHECKING:
    from src.runs.load import LoadedRun, load_run

__all__ = ["LoadedRun", "load_run"]

# Late: most programs import a part of this package that starts without torch.
__getattr__ = importing_late(__name__, __all__, "src.runs.load")
