"""The files that a prediction is for."""

from pathlib import Path
from typing import NamedTuple

from src.utils.errors import ConfigError
from src.utils.image_files import READERS, ending_of, image_paths, without_ending


class Source(NamedTuple):
    """A file, and its path from the folder that was given, or its name alone."""

    path: Path
    name: Path

    @property
    def stem(self) -> Path:
        """The name without the ending that tells the format."""
        return self.name.with_name(without_ending(self.name.name))


def find_sources(given: Path) -> list[Source]:
    """Return a file, or the image files at any depth of a folder, in order.

    Raises:
        ConfigError: if there are none.
    """
    if given.is_file() and ending_of(given.name) is not None:
        return [Source(given, Path(given.name))]
    sources = [Source(path, path.relative_to(given)) for path in image_paths(given)] if given.is_dir() else []
    if not sources:
        found = "has none" if given.is_dir() else "is another file" if given.exists() else "does not exist"
        raise ConfigError(
            f"expected input=<an image file ({', '.join(READERS)}), or a folder of them>, got {given}, which {found}"
        )
    return sources
