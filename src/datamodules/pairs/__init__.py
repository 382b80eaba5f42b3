"""Pairs of images in files: an input, and the target that a network learns to make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from src.datamodules.pairs.datamodule import PairsDataModule

__all__ = ["PairsDataModule"]


def __getattr__(name: str) -> Any:
    """Import the datamodule late: worker processes import this package too, and start sooner without Lightning."""
    if name in __all__:
        from src.datamodules.pairs.datamodule import PairsDataModule

        return PairsDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
