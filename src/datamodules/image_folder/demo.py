"""A small set of generated pictures in folders, for trying things out."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.datamodules.cached_files import make_missing, whole_folder
from src.datamodules.demo_folder import demo_folder
from src.utils.errors import check_range

# Changes whenever the same parameters would give other pictures.
DEMO_VERSION = 1
CLASS_NAMES = ("disc", "ring", "stripes")


@dataclasses.dataclass(frozen=True)
class ImageFolderDemo:
    """Coloured discs, rings and stripes as PNG files of several sizes.

    Args:
        num_per_class: pictures of each class.
        side: least number of rows and columns.
        labelled: one folder per class, or else all pictures in one folder.
        seed: of the pictures.

    Raises:
        ValueError: a parameter is out of its range.
    """

    num_per_class: int = 100
    side: int = 32
    labelled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(1, num_per_class=self.num_per_class)
        check_range(8, side=self.side)
        check_range(0, seed=self.seed)

    def folder(self, data_dir: Path) -> Path:
        """Return the set's folder, see `demo_folder`."""
        own_files = [f"{folder}*{ending}" for folder in ("", "*/") for ending in IMG_EXTENSIONS]
        label = "classes" if self.labelled else "flat"
        return demo_folder(data_dir, label, self._parameters(), "image_folder", own_files)

    def write(self, folder: Path) -> None:
        """Write the set unless it is there; raise ValueError if the folder cannot be written."""
        make_missing(
            folder.parent,
            f"makes the pictures of {folder}",
            lambda: {} if folder.is_dir() else {folder: None},
            lambda _: self._write(folder),
        )

    def _parameters(self) -> dict[str, object]:
        return {"demo_version": DEMO_VERSION, **dataclasses.asdict(self)}

    def _write(self, folder: Path) -> None:
        with whole_folder(folder) as unfinished:
            for label, name in enumerate(CLASS_NAMES):
                for i in range(self.num_per_class):
                    rng = np.random.default_rng(np.random.SeedSequence((self.seed, label, i)))
                    path = unfinished / name / f"{i:04d}.png" if self.labelled else unfinished / f"{name}_{i:04d}.png"
                    path.parent.mkdir(exist_ok=True)
                    Image.fromarray(_picture(rng, name, self.side)).save(path)


def _picture(rng: np.random.Generator, name: str, side: int) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) of one object in a colour of its own on a dark ground."""
    height, width = rng.integers(side, side + side // 2, 2, endpoint=True)
    rows, columns = np.mgrid[:height, :width] / min(height, width)
    centre = rng.uniform(0.4, 0.6, 2) * (height, width) / min(height, width)
    radius = np.hypot(rows - centre[0], columns - centre[1])
    angle, size = rng.uniform(0, np.pi), rng.uniform(0.22, 0.32)
    masks = {
        "disc": radius < size,
        "ring": np.abs(radius - size) < 0.05,
        "stripes": np.sin(2 * np.pi * (np.cos(angle) * rows + np.sin(angle) * columns) / (0.7 * size)) > 0,
    }
    colour, ground = rng.uniform(120, 255, 3), rng.uniform(0, 60, 3)
    clean = np.where(masks[name][..., None], colour, ground)
    return np.clip(np.rint(clean + rng.normal(0, 8, clean.shape)), 0, 255).astype(np.uint8)
