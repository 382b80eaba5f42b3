"""LoDoPaB-CT: slices of chests, their low-dose scans, and filtered backprojections of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.datamodules.lodopab.datamodule import LodopabDataModule

__all__ = ["LodopabDataModule"]


def __getattr__(name: str) -> Any:
    """Import the datamodule late: worker processes import this package too, and start sooner without Lightning."""
    if name in __all__:
        from src.datamodules.lodopab.datamodule import LodopabDataModule

        return LodopabDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
