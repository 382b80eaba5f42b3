"""The user's own images, in class folders for classifiers, or all in one folder for flows."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities import rank_zero_warn
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.datamodules.held_out import HeldOut
from src.datamodules.image_folder.demo import ImageFolderDemo
from src.datamodules.image_folder.files import ImageFile, Listing, list_images
from src.datamodules.image_folder.reading import FITS, MODES, ReadImage, conversion_note, read_image
from src.datamodules.images import LabelledImageDataModule
from src.datamodules.pairs.images import Image as InputImage
from src.datamodules.problems import Problem, listing
from src.utils.errors import check_range
from src.utils.processes import available_cpus
from src.utils.reading import FileError

# The test images are read before the training too: a bad one is found then, together with the others.
STAGES = {"train": (None, "fit"), "val": (None, "fit", "validate"), "test": (None, "fit", "test")}


class ImageFolderDataModule(LabelledImageDataModule):
    """Images of a folder, scaled to one size; see `LabelledImageDataModule`.

    `list_images` describes the layouts, `read_image` the files.

    Args:
        data_dir: the folder.
        channels, size: of the network's input: 1 or 3 channels, ``size`` rows and columns.
        num_classes: the number of class folders; with ``values=integers``, for flows, classes are not needed.
        fit, upscale: how an image of another size becomes one of ``size``; see `read_image`.
        val_fraction, test_fraction: of the images, for parts that have no folder of their own.
        seed: of these parts.
        num_train, num_val, num_test: at most so many images of each part; None for all.
        values, augment, batch_size, num_workers, pin_memory: see `LabelledImageDataModule`.
        max_shift, flips: what ``augment`` does.
        mean, std: of each channel, in units of 255, for ``values=standardised``; None for those of the training images.
        skip_bad_images: leave out files that cannot be read or are too small.
        demo: a small generated set, which is written below data_dir and used.

    Attributes:
        class_names: after setup, the names of the class folders; with the state of a checkpoint, those of its training.

    Raises:
        ValueError: an argument is out of its range.
    """

    INPUT_ENDINGS = IMG_EXTENSIONS  # of files to predict

    def __init__(
        self,
        data_dir: str = "data/images",
        channels: int = 3,
        size: int = 32,
        num_classes: int = 2,
        fit: str = "crop",
        upscale: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        values: str = "unit",
        augment: bool = False,
        max_shift: int = 2,
        flips: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        skip_bad_images: bool = False,
        batch_size: int = 64,
        num_workers: int = 0,
        pin_memory: bool = False,
        demo: ImageFolderDemo | None = None,
    ) -> None:
        super().__init__(num_train, num_val, num_test, values, augment, batch_size, num_workers, pin_memory)
        if channels not in MODES:
            raise ValueError(f"expected image.channels of 1 (grey) or 3 (colour), got {channels}")
        if fit not in FITS:
            raise ValueError(f"expected fit as one of {', '.join(FITS)}, got {fit!r}")
        for name, numbers in (("mean", mean), ("std", std)):
            if numbers is not None and len(numbers) != channels:
                raise ValueError(f"expected {name} as {channels} numbers, one per channel, got {list(numbers)}")
        check_range(1, size=size, num_classes=num_classes)
        check_range(0, max_shift=max_shift, seed=seed)
        check_range(0, 0.5, val_fraction=val_fraction, test_fraction=test_fraction)
        self.demo = demo
        self.data_dir = Path(data_dir) if demo is None else demo.folder(Path(data_dir))
        self.sample_shape = (channels, size, size)
        self.num_classes = num_classes
        self.class_names = tuple(map(str, range(num_classes)))
        self.read = partial(read_image, channels=channels, size=size, fit=fit, upscale=upscale)
        self.fractions = (val_fraction, test_fraction)
        self.seed = seed
        self.caps = {"train": num_train, "val": num_val, "test": num_test}
        self.max_shift, self.flips = max_shift, flips
        self.MEAN, self.STD = tuple(mean or ()), tuple(std or ())
        self.skip_bad_images = skip_bad_images
        self.trained_classes: tuple[str, ...] = ()
        self._inputs: list[bool] = []  # of each image to predict, whether its channels were changed
        self.held_out = HeldOut(self.data_dir, "datamodule.skip_bad_images", skip_bad_images)

    def prepare_data(self) -> None:
        """Write the demo, unless it is there."""
        if self.demo is not None:
            self.demo.write(self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        """Read the images of a stage into memory; with ``values=standardised`` also the training images.

        Mean, deviation, classes and drawn parts are those of a loaded state, which makes the training images needless.

        Raises:
            ValueError: for a folder that `list_images` refuses, other classes or numbers of classes, a part without
                images, and images that cannot be used, which the message lists.
        """
        wanted = [part for part, stages in STAGES.items() if stage in stages and part not in self.sets]
        if not wanted:
            return
        self.held_out.recognise(lambda name: (self.data_dir / name).is_file())
        listing = list_images(self.data_dir, *self.fractions, self.seed, self.held_out.parts, self.trained_classes)
        self._check_classes(listing, wanted)
        self.held_out.keep({part: names for part, names in listing.drawn.items() if part in wanted})
        parts = {part: self._capped(part, listing.parts[part]) for part in wanted}
        is_known = self.MEAN and self.STD
        if self.values == "standardised" and not is_known and "train" not in {*wanted, *self.sets}:
            parts["train"] = self._capped("train", listing.parts["train"])
        arrays = self._read_all(parts)
        if "train" in arrays:
            self._measure(arrays["train"])
        for part in wanted:
            labels = torch.tensor([image.label for image in parts[part]], dtype=torch.int64)
            self.keep(part, torch.from_numpy(arrays[part]), labels)

    def state_dict(self) -> dict[str, Any]:
        """Return what a prediction, an evaluation and a resumed run need: the mean and the deviation of each channel of
        the training images, the classes, and the images of drawn parts."""
        return {name: list(getattr(self, name)) for name in ("MEAN", "STD") if getattr(self, name)} | {
            "class_names": list(self.class_names),
            **self.held_out.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, unless images were read already; a given mean and std stay."""
        if self.sets:  # Lightning loads the state too, after setup
            return
        self.MEAN = self.MEAN or tuple(state_dict.get("MEAN", ()))
        self.STD = self.STD or tuple(state_dict.get("STD", ()))
        self.class_names = tuple(state_dict["class_names"])
        if self.values != "integers":
            self.trained_classes = self.class_names
        self.held_out.load_state_dict(state_dict)

    def read_input(self, path: Path) -> InputImage:
        """Return an image to predict, scaled as those of the training; raise FileError if it cannot be used."""
        image = self.read(path)
        self._inputs.append(image.is_converted)
        return InputImage(image.values.astype(np.float32), None)

    def input_notes(self) -> list[str]:
        """Return what to say of the images that `read_input` has read."""
        number = sum(self._inputs)
        return [conversion_note(number, len(self._inputs), self.sample_shape[0])] if number else []

    def _check_classes(self, listing: Listing, wanted: Sequence[str]) -> None:
        if self.values == "integers":
            return
        if self.trained_classes:
            self._check_trained_classes(listing, complete="train" in wanted)
            return
        found = len(listing.class_names)
        if found != self.num_classes or found < 2:
            names = ", ".join(listing.class_names) or "no folder, only images"
            remedy = "a classifier needs at least 2" if found < 2 else f"image.num_classes={found} takes them"
            raise ValueError(
                f"expected image.num_classes={self.num_classes} class folders in {self.data_dir}, got {found}: {names} "
                f"({remedy})"
            )
        self.class_names = listing.class_names

    def _check_trained_classes(self, listing: Listing, complete: bool) -> None:
        known, found = set(self.trained_classes), set(listing.class_names)
        if not found or not found <= known or (complete and found != known):
            names = ", ".join(listing.class_names) or "no folder, only images"
            raise ValueError(
                f"expected the classes of the training: {', '.join(self.trained_classes)}, as folders in "
                f"{self.data_dir}, got {names}"
            )

    def _capped(self, part: str, images: list[ImageFile]) -> list[ImageFile]:
        if not images and not (part == "val" and self.fractions[0] == 0):
            raise ValueError(
                f"expected at least one image for {part} in {self.data_dir}, got none; a larger datamodule."
                f"{'val' if part == 'val' else 'test'}_fraction or more images help"
            )
        cap = self.caps[part]
        if cap is not None and cap < len(images):
            rank_zero_warn(f"Using {cap} of the {len(images)} images for {part}; datamodule.num_{part}=null uses all")
        return images[:cap]

    def _read_all(self, parts: dict[str, list[ImageFile]]) -> dict[str, NDArray[np.uint8]]:
        """Return the images of each part, (N, C, H, W), and drop bad ones from ``parts`` if these may be skipped."""
        read: dict[str, list[ReadImage]] = {}
        problems: list[Problem] = []
        with ThreadPoolExecutor(available_cpus()) as pool:
            for part, images in parts.items():
                results = list(pool.map(self._try_to_read, images))
                problems += [result for result in results if isinstance(result, Problem)]
                good = [(i, r) for i, r in zip(images, results, strict=True) if not isinstance(r, Problem)]
                parts[part], read[part] = [image for image, _ in good], [result for _, result in good]
        self._report(problems)
        converted = [result.is_converted for results in read.values() for result in results]
        if any(converted):
            note = conversion_note(sum(converted), len(converted), self.sample_shape[0])
            rank_zero_warn(f"In {self.data_dir}, {note}")
        stacks = {part: [result.values for result in results] for part, results in read.items()}
        return {part: np.stack(arrays) if arrays else self._no_images() for part, arrays in stacks.items()}

    def _try_to_read(self, image: ImageFile) -> ReadImage | Problem:
        try:
            return self.read(image.path)
        except FileError as error:
            name = image.path.relative_to(self.data_dir).as_posix()
            return Problem(name, name, str(error))

    def _no_images(self) -> NDArray[np.uint8]:
        return np.empty((0, *self.sample_shape), np.uint8)

    def _report(self, problems: Sequence[Problem]) -> None:
        if not problems:
            return
        if self.skip_bad_images:
            rank_zero_warn(f"Skipping {len(problems)} bad images of {self.data_dir}:\n{listing(problems)}")
            return
        raise ValueError(
            f"expected images that can be used in {self.data_dir}, got {len(problems)} that cannot. "
            f"datamodule.skip_bad_images=true skips them.\n{listing(problems)}"
        )

    def _measure(self, images: NDArray[np.uint8]) -> None:
        """Set MEAN and STD of each channel over the images (N, C, H, W), unless they are known."""
        counts = np.stack(
            [np.bincount(images[:, channel].ravel(), minlength=256) for channel in range(images.shape[1])]
        )
        shares = counts / counts.sum(axis=1, keepdims=True)
        unit = np.arange(256) / 255
        means = shares @ unit
        deviations = np.sqrt(np.maximum(shares @ unit**2 - means**2, 0))
        self.MEAN = self.MEAN or tuple(means.tolist())
        # A channel without contrast has nothing to divide by.
        self.STD = self.STD or tuple((d or 1.0) for d in deviations.tolist())
