"""nnU-Net's raw format and that of the Medical Segmentation Decathlon: any modalities, any classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.datamodules.nnunet.datamodule import NnunetDataModule

__all__ = ["NnunetDataModule"]


def __getattr__(name: str) -> Any:
    """Import the datamodule late: worker processes import this package too, and start sooner without Lightning."""
    if name in __all__:
        from src.datamodules.nnunet.datamodule import NnunetDataModule

        return NnunetDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
