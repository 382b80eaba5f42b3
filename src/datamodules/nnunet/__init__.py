"""nnU-Net's raw format and that of the Medical Segmentation Decathlon: any modalities, any classes."""

from typing import TYPE_CHECKING

from src.utils.late_imports import importing_late

if TYPE_CHECKING:
    from src.datamodules.nnunet.datamodule import NnunetDataModule

__all__ = ["NnunetDataModule"]

# Late: worker processes import this package too, and start sooner without Lightning.
__getattr__ = importing_late(__name__, __all__, "src.datamodules.nnunet.datamodule")
