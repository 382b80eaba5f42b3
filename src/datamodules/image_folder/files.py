"""The images of a folder: their classes, as torchvision's ImageFolder finds them, and which part each belongs to."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.datamodules.problems import no_folder
from src.utils.errors import did_you_mean

# The folder of each part in a set that is divided by folders; the first one makes a set such a set.
PART_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
# Names that are meant as such a folder and are none, such as Training_set, test2017 or eval-images.
TRAIN_LIKE = re.compile(r"train(ing)?(set|data)?(?![a-z])", re.IGNORECASE)
TEST_LIKE = re.compile(r"(val(id(ation)?)?|test(ing)?|eval(uation)?)(set|data)?(?![a-z])", re.IGNORECASE)


class ImageFile(NamedTuple):
    """An image and its class."""

    path: Path
    label: int


class Listing(NamedTuple):
    """The images of each part.

    Attributes:
        class_names: of the folders that were found; none for a flat folder, whose labels are 0.
        parts: the images of "train", "val" and "test".
        drawn: the names, relative to the folder, of those for the parts that have no folder.
    """

    class_names: tuple[str, ...]
    parts: dict[str, list[ImageFile]]
    drawn: dict[str, list[str]]


def list_images(
    folder: Path,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    kept: Mapping[str, Sequence[str]],
    trained: Sequence[str],
) -> Listing:
    """Return the images of a folder with the sub-folders train, val and test, or of one whose parts are drawn.

    A class is a folder, in the order of names; its images lie at any depth. A folder without folders is flat. A part
    that has no folder is drawn from the training images, the same fraction of every class. The images of each part are
    shuffled by ``seed``.

    Args:
        folder: of the images.
        val_fraction, test_fraction: of the training images, for parts that are drawn.
        seed: of the draw and the order.
        kept: the names of parts that were drawn before, which get those of them again that are there.
        trained: the classes of a trained network, whose places are the labels. The folders train, val and test need not
            all be there then, and others than these classes are in ``class_names`` only.

    Raises:
        ValueError: if there are no images, or the folder's layout is no such layout; all problems are listed.
    """
    if not folder.is_dir():
        raise ValueError(
            f"expected data_dir to be a folder of images, got {no_folder(folder)}; "
            "datamodule=image_folder_demo makes a small set"
        )
    sources = _sources(folder, trained)
    found = {part: _folder_names(path) for part, path in sources.items()}
    _check_layout(folder, sources, found, trained)
    classes = tuple(trained) or found["train"]
    rng = np.random.default_rng(seed)
    parts = {"train": [], **{part: list(_images(path, classes)) for part, path in sources.items()}}
    fractions = {"val": val_fraction, "test": test_fraction}
    missing = {part: fraction for part, fraction in fractions.items() if part not in parts}
    paths = {part: [folder / name for name in kept[part]] for part in missing if kept.get(part)}
    parts |= _draw(parts["train"], missing, paths, rng)
    parts = {part: _shuffled(parts[part], rng) for part in PART_FOLDERS}
    # A cap takes the first ones, which must be the same again.
    parts |= {part: _in_order(parts[part], order) for part, order in paths.items()}
    drawn = {part: [image.path.relative_to(folder).as_posix() for image in parts[part]] for part in missing}
    return Listing(tuple(sorted(set(chain(*found.values())))), parts, drawn)


def _sources(folder: Path, trained: Sequence[str]) -> dict[str, Path]:
    """Return the folders of the parts, or the whole folder as that of all parts to be drawn."""
    present = {part: _part_folder(folder, names) for part, names in PART_FOLDERS.items()}
    found = {part: path for part, path in present.items() if path is not None}
    # A class may have the name of a part.
    if "train" in found or (trained and found and not {path.name for path in found.values()} & set(trained)):
        return found
    _check_no_parts(folder)
    return {"train": folder}


def _check_no_parts(folder: Path) -> None:
    """Refuse class folders that are meant as the parts of a set: a network would learn to tell these apart."""
    names = _folder_names(folder)
    training = [name for name in names if TRAIN_LIKE.match(name)]
    testing = [name for name in names if TEST_LIKE.match(name)]
    if training and testing:
        valid = ", ".join(" or ".join(accepted) for accepted in PART_FOLDERS.values())
        raise ValueError(
            f"expected the parts of a divided set as folders {valid}, and classes with other names, in {folder}, got "
            f"{', '.join([*training, *testing])}; rename them"
        )


def _check_layout(
    folder: Path, sources: Mapping[str, Path], found: Mapping[str, Sequence[str]], trained: Sequence[str]
) -> None:
    problems = [problem for part, path in sources.items() for problem in _problems(path, found[part])]
    problems += [] if trained else _unknown_classes(sources, found)
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(
            f"expected images ({', '.join(IMG_EXTENSIONS)}) in one folder per class, or all directly in {folder}, got\n"
            f"{listing}"
        )


def _part_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of these folders that there is, in small or capital letters."""
    present = {name.lower(): folder / name for name in _folder_names(folder)}
    return next((present[name] for name in names if name in present), None)


def _folder_names(folder: Path) -> tuple[str, ...]:
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


def _unknown_classes(sources: Mapping[str, Path], found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for part, names in found.items():
        for name in sorted(set(names) - set(found["train"])):
            hint = did_you_mean(name, found["train"])
            yield f"{sources[part] / name}: no such class in {sources['train']}{hint}"


def _images(folder: Path, classes: Sequence[str]) -> Iterator[ImageFile]:
    if not classes:
        yield from (ImageFile(path, 0) for path in _find(folder))
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            yield from (ImageFile(path, label) for path in _find(folder / name))


def _draw(
    images: Sequence[ImageFile],
    fractions: Mapping[str, float],
    kept: Mapping[str, Sequence[Path]],
    rng: np.random.Generator,
) -> dict[str, list[ImageFile]]:
    """Return "train" and the parts of ``fractions``, with the same fraction of every class as far as it can be.

    The parts of ``kept`` get the images with these paths and no others.
    """
    parts: dict[str, list[ImageFile]] = {part: [] for part in ("train", *fractions)}
    part_of = {path: part for part, paths in kept.items() for path in paths}
    # Neighbours in this order are of one class, so that every k-th image is an even choice from all classes.
    order = sorted(_shuffled(images, rng), key=lambda image: image.label)
    due = {part: 0.5 for part in fractions if part not in kept}
    for image in order:
        if image.path in part_of:
            parts[part_of[image.path]].append(image)
            continue
        for part in due:
            due[part] += fractions[part]
        chosen = next((part for part in due if due[part] >= 1), "train")
        if chosen != "train":
            due[chosen] -= 1
        parts[chosen].append(image)
    return parts


def _shuffled(images: Sequence[ImageFile], rng: np.random.Generator) -> list[ImageFile]:
    return [images[i] for i in rng.permutation(len(images))]


def _in_order(images: Sequence[ImageFile], paths: Sequence[Path]) -> list[ImageFile]:
    place = {path: i for i, path in enumerate(paths)}
    return sorted(images, key=lambda image: place[image.path])
