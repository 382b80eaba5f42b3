"""Checked and scaled pairs as files that a crop can be read from."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from src.datamodules.cached_files import folder_name
from src.datamodules.case_cache import CachedCase, CaseCache, Preprocessed
from src.datamodules.pairs.images import Image, ImageKind, Scaling
from src.datamodules.pairs.pairing import Pair, shown
from src.datamodules.problems import Problem
from src.utils.grids import geometry_errors

# Changes whenever the same files would give other arrays.
PREPROCESSING_VERSION = 2
# The array of a pair: input and target, (C_in + C_target, *spatial).
IMAGES = "images"

CachedPair = CachedCase[Pair]
PairCache = CaseCache[Pair]


@dataclass(frozen=True)
class Preprocessing:
    """What is done with the files of a pair: reading inputs and targets, and scaling both."""

    input: ImageKind
    target: ImageKind
    scaling: Scaling

    def apply(self, pair: Pair) -> Preprocessed | list[Problem]:
        """Return input and target, scaled, as (C_in + C_target, *spatial), or all that is wrong with them."""
        problems: list[Problem] = []
        images: list[Image] = []
        for kind, path in ((self.input, pair.input), (self.target, pair.target)):
            try:
                images.append(kind.read(path))
            except ValueError as error:  # a FileError is one too
                problems.append(Problem(pair.name, shown(path), str(error)))
        if problems:
            return problems
        image, target = images
        grids = target.grid(shown(pair.target)), image.grid(shown(pair.input))
        errors = [(shown(pair.target), message) for message in geometry_errors(*grids)]
        try:
            windows = self.scaling.windows(image.values)
        except ValueError as error:
            errors.append((shown(pair.input), str(error)))
        if errors:
            return [Problem(pair.name, *error) for error in errors]
        scaled = [window.scaled(one.values) for window, one in zip(windows, images, strict=True)]
        return Preprocessed({IMAGES: np.concatenate(scaled)}, {})


def pair_cache(cache_dir: Path, source: Path, preprocessing: Preprocessing) -> PairCache:
    """Return the cache of a folder's or a manifest's pairs, below ``cache_dir``."""
    parameters = {
        "preprocessing_version": PREPROCESSING_VERSION,
        "source": str(source.resolve()),
        **asdict(preprocessing),
    }
    folder = cache_dir / folder_name(source.resolve().name, parameters)
    return CaseCache(folder, preprocessing.apply, "Checking and preprocessing images")
