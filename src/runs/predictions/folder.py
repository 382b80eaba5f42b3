"""A folder of predicted files, with a note of their origin."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from src.utils.files import write_text
from src.utils.reading import read_json


class PredictionFolder:
    """Predicted files that all have one origin: ``predictions.json`` states it, so that two networks' are not mixed.

    Args:
        path: the folder.
        origin: what all files have in common, such as the checkpoint; as JSON keeps it.
        what: the files, for messages.

    Attributes:
        note: the file that states the origin.
    """

    def __init__(self, path: Path, origin: dict[str, Any], what: str) -> None:
        self.path = path
        self.origin = origin
        self.what = what
        self.note = path / "predictions.json"

    def begin(self, targets: Iterable[Path]) -> None:
        """State the origin of the files to be written; those of another origin in their place go first.

        Otherwise an interruption would leave them under the new origin.
        """
        if self._different():
            for target in targets:
                target.unlink(missing_ok=True)
        write_text(self.note, json.dumps(self.origin, indent=2) + "\n")

    def check_origin(self) -> None:
        """Raise ValueError if the files that are there already have another origin."""
        different = self._different()
        if different:
            raise ValueError(
                f"expected output={self.path} to be empty or to have {self.what} with "
                f"{', '.join(f'{key} {value!r}' for key, value in self.origin.items())}, got {self.what} with "
                f"{', '.join(different)}; overwrite=true replaces them"
            )

    def _different(self) -> list[str]:
        """Return what differs in the origin of the files that are there, for a message."""
        found = read_json(self.note, f"the origin of {self.what}") if self.note.is_file() else {}
        return [f"{key} {found.get(key)!r}" for key, value in self.origin.items() if found.get(key) != value]
