"""The files that a prediction is for."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.datamodules.split import SPLITS
from src.utils.errors import ConfigError
from src.utils.image_files import READERS, ending_of, image_paths, without_ending


class Source(NamedTuple):
    """A file to predict.

    Attributes:
        path: of the file.
        name: its path from the folder that was given, or its name alone.
        stem: the same without the ending that tells the format.
    """

    path: Path
    name: Path
    stem: Path


def input_endings(datamodule: Any, mode: str | None) -> Collection[str]:
    """Return the endings of the files that a prediction can be for, of a datamodule or its class.

    They are the data's own ``INPUT_ENDINGS``; without these, and for latents, those of all formats.
    """
    own = None if mode == "decode" else getattr(datamodule, "INPUT_ENDINGS", None)
    return READERS if own is None else own


def base_folder(given: Path) -> Path:
    """Return the folder from which the names of the files count: the one that was given, or that of a file."""
    return given.parent if given.is_file() else given


def find_sources(given: Path, endings: Collection[str]) -> list[Source]:
    """Return a file, or the image files at any depth of a folder, in order.

    Raises:
        ConfigError: if there are none.
    """
    if given.is_file() and ending_of(given.name, endings) is not None:
        paths = [given]
    else:
        paths = list(image_paths(given, endings)) if given.is_dir() else []
    if not paths:
        found = "has none" if given.is_dir() else "is another file" if given.exists() else "does not exist"
        raise ConfigError(
            f"expected input=<an image file ({', '.join(endings)}), or a folder of them>, got {given}, which {found}"
        )
    names = [path.relative_to(base_folder(given)) for path in paths]
    stems = [name.with_name(without_ending(name.name, endings)) for name in names]
    return [Source(*source) for source in zip(paths, names, stems, strict=True)]


def targets_note(datamodule: Any, given: Path, sources: Sequence[Source]) -> str | None:
    """Return a note for a folder like that of the training, of which the targets are restored too; else None.

    Args:
        datamodule: of the run; one of pairs has the ``patterns`` of inputs and targets, such as ``input/*``.
        given: the folder.
        sources: the files in it.
    """
    inputs, targets = (_folder_of(pattern) for pattern in getattr(datamodule, "patterns", ("", "")))
    for place in (given, *(given / part for part in SPLITS)):
        number = sum(source.path.is_relative_to(place / targets) for source in sources)
        if inputs and targets and inputs != targets and number and (place / inputs).is_dir():
            return (
                f"note: {number} of the {len(sources)} files in {given} are in {place / targets}, where the training "
                f"has its targets; input={place / inputs} restores the inputs alone"
            )
    return None


def _folder_of(pattern: str) -> str:
    """Return the folder in which a pattern finds all its files, "" if it names none."""
    folder = pattern.rpartition("/")[0]
    return "" if "*" in folder else folder
