"""BraTS: brain tumours in MR scans of four modalities, in the layouts of its releases."""

from typing import TYPE_CHECKING

from src.utils.late_imports import importing_late

if TYPE_CHECKING:
    from src.datamodules.brats.datamodule import BratsDataModule

__all__ = ["BratsDataModule"]

# Late: worker processes import this package too, and start sooner without Lightning.
__getattr__ = importing_late(__name__, __all__, "src.datamodules.brats.datamodule")
