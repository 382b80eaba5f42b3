"""LoDoPaB-CT: slices of chests, their low-dose scans, and filtered backprojections of these."""

from typing import TYPE_CHECKING

from src.utils.late_imports import importing_late

if TYPE_CHECKING:
    from src.datamodules.lodopab.datamodule import LodopabDataModule

__all__ = ["LodopabDataModule"]

# Late: worker processes import this package too, and start sooner without Lightning.
__getattr__ = importing_late(__name__, __all__, "src.datamodules.lodopab.datamodule")
