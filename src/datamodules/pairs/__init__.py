"""Pairs of images in files: an input, and the target that a network learns to make of it."""

from typing import TYPE_CHECKING

from src.utils.late_imports import importing_late

if TYPE_CHECKING:
    from src.datamodules.pairs.datamodule import PairsDataModule

__all__ = ["PairsDataModule"]

# Late: worker processes import this package too, and start sooner without Lightning.
__getattr__ = importing_late(__name__, __all__, "src.datamodules.pairs.datamodule")
