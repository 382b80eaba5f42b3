"""The images of a folder: their classes, as torchvision's ImageFolder finds them, and which part each belongs to."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.utils.errors import did_you_mean

# The folder of each part in a set that is divided by folders; the first one makes a set such a set.
PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


class ImageFile(NamedTuple):
    """An image and its class."""

    path: Path
    label: int


class Listing(NamedTuple):
    """The images of each part, and the names of the classes; none for a flat folder, whose labels are 0."""

    class_names: tuple[str, ...]
    parts: dict[str, list[ImageFile]]


def list_images(folder: Path, val_fraction: float, test_fraction: float, seed: int) -> Listing:
    """Return the images of a folder with the sub-folders train, val and test, or of one whose parts are drawn.

    A class is a folder, in the order of names; its images lie at any depth. A folder without folders is flat. A part
    that has no folder is drawn from the training images, the same fraction of every class. The images of each part are
    shuffled by ``seed``.

    Raises:
        ValueError: if there are no images, or the folder's layout is no such layout; all problems are listed.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected data_dir to be a folder of images, got {folder}, which "
            f"{'is no folder' if folder.exists() else 'does not exist'}; datamodule=image_folder_demo makes a small set"
        )
    present = {part: _part_folder(folder, names) for part, names in PART_FOLDERS.items()}
    found = {part: path for part, path in present.items() if path is not None}
    sources = found if "train" in found else {"train": folder}
    classes = {part: _classes(path) for part, path in sources.items()}
    problems = [problem for part, path in sources.items() for problem in _problems(path, classes[part])]
    problems += [
        f"{sources[part] / name}: no such class in {sources['train']}{did_you_mean(name, classes['train'])}"
        for part, names in classes.items()
        for name in sorted(set(names) - set(classes["train"]))
    ]
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(
            f"expected images ({', '.join(IMG_EXTENSIONS)}) in one folder per class, or all directly in {folder}, got\n"
            f"{listing}"
        )
    rng = np.random.default_rng(seed)
    parts = {part: list(_images(path, classes["train"])) for part, path in sources.items()}
    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {part: fraction for part, fraction in fractions.items() if part not in parts}
    parts |= _draw(parts["train"], missing, rng)
    return Listing(classes["train"], {part: _shuffled(parts[part], rng) for part in PART_FOLDERS})


def _part_folder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path)))


def _is_hidden(path: Path) -> bool:
    """Whether a file or folder is another program's: of an editor, of macOS in an archive."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def _find(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder at any depth, sorted."""
    for path in sorted(folder.iterdir()):
        if _is_hidden(path):
            continue
        if path.is_dir():
            yield from _find(path)
        elif path.suffix.lower() in IMG_EXTENSIONS:
            yield path


def _problems(folder: Path, classes: Sequence[str]) -> Iterator[str]:
    loose = [path.name for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS and not _is_hidden(path)]
    if classes and loose:
        yield f"{folder}: {len(loose)} images, such as {min(loose)}, beside the folders {', '.join(classes)}"
    if not classes and not loose:
        yield f"{folder}: no image"
    for name in classes:
        if next(_find(folder / name), None) is None:
            yield f"{folder / name}: no image"


def _images(folder: Path, classes: Sequence[str]) -> Iterator[ImageFile]:
    if not classes:
        yield from (ImageFile(path, 0) for path in _find(folder))
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            yield from (ImageFile(path, label) for path in _find(folder / name))


def _draw(
    images: Sequence[ImageFile], fractions: dict[str, float], rng: np.random.Generator
) -> dict[str, list[ImageFile]]:
    """Return "train" and the parts of ``fractions``, with the same fraction of every class as far as it can be."""
    parts: dict[str, list[ImageFile]] = {part: [] for part in ("train", *fractions)}
    # Neighbours in this order are of one class, so that every k-th image is an even choice from all classes.
    order = sorted(_shuffled(images, rng), key=lambda image: image.label)
    due = dict.fromkeys(fractions, 0.5)
    for image in order:
        for part, fraction in fractions.items():
            due[part] += fraction
        chosen = next((part for part in fractions if due[part] >= 1), "train")
        if chosen != "train":
            due[chosen] -= 1
        parts[chosen].append(image)
    return parts


def _shuffled(images: Sequence[ImageFile], rng: np.random.Generator) -> list[ImageFile]:
    return [images[i] for i in rng.permutation(len(images))]
