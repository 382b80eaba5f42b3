"""A folder of predicted files, with a note of their origin."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from src.utils.files import write_text
from src.utils.reading import read_json

# The key of the list, beside those of the origin.
FILES = "files"


class PredictionFolder:
    """Predicted files that all have one origin: ``predictions.json`` states it and lists them.

    So two networks' are not mixed. The list has files that are still to be written, too; others have nothing stated.

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

    def begin(self, files: Collection[Path]) -> None:
        """State the origin of the files to be written; those of another origin in their place go first.

        Otherwise an interruption would leave them under the new origin.

        Raises:
            ValueError: as `check_replaces` does.
        """
        self.check_replaces(files)
        earlier: set[Path] = set()
        if self._different():
            for path in files:
                path.unlink(missing_ok=True)
        else:
            earlier = self._listed()
        names = sorted(path.relative_to(self.path).as_posix() for path in earlier.union(files))
        write_text(self.note, json.dumps({**self.origin, FILES: names}, indent=2) + "\n")

    def check_replaces(self, files: Collection[Path]) -> None:
        """Raise ValueError if predictions of another origin would remain beside the files to be written."""
        others = sorted(path for path in self._listed() - set(files) if path.exists()) if self._different() else []
        if others:
            raise ValueError(
                f"expected output={self.path} to have no {self.what} of another origin besides those to be replaced, "
                f"got {len(others)}, such as {others[0]}; choose another folder, or remove them"
            )

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
        found = self._found()
        return [f"{key} {found.get(key)!r}" for key, value in self.origin.items() if found.get(key) != value]

    def _listed(self) -> set[Path]:
        return {self.path / name for name in self._found().get(FILES, [])}

    def _found(self) -> dict[str, Any]:
        return read_json(self.note, f"the origin of {self.what}") if self.note.is_file() else {}
