"""Checkpoint files that are complete or absent, and are checked for damage before they are loaded."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.types import _PATH

from src.utils.files import atomic_write
from src.utils.reading import reading
from src.utils.seal import check_archive, seal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoint files beside their final path, then renames them.

    Lightning writes its temporary file to the system's temporary folder and moves it; on another file system (a tmpfs
    ``/tmp``, a scratch disk) the move is a copy, and a killed process leaves half of the checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to the local ``path``.

        Raises:
            TypeError: if ``storage_options`` are given; a local file has none.
            OSError: naming ``path``, if it cannot be written.
        """
        if storage_options is not None:
            raise TypeError(f"expected no storage_options for a local checkpoint, got {storage_options!r}")
        with atomic_write(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # torch reports that the file ends early; the cause is a full disk or a Ctrl-C.
                raise error.__context__ or error from None
            seal(file)

    def load_checkpoint(self, path: _PATH, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint that is unchanged since it was written.

        Raises:
            FileError: if it is damaged.
        """
        with reading(path, "a readable checkpoint"):
            check_archive(Path(path))
            return super().load_checkpoint(path, *args, **kwargs)
