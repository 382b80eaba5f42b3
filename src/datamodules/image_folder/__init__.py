"""The user's own images, in class folders or all in one folder."""

from src.datamodules.image_folder.datamodule import ImageFolderDataModule

__all__ = ["ImageFolderDataModule"]
