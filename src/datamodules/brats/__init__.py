"""BraTS: brain tumours in MR scans of four modalities, in the layouts of its releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.datamodules.brats.datamodule import BratsDataModule

__all__ = ["BratsDataModule"]


def __getattr__(name: str) -> Any:
    """Import the datamodule late: worker processes import this package too, and start sooner without Lightning."""
    if name in __all__:
        from src.datamodules.brats.datamodule import BratsDataModule

        return BratsDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
