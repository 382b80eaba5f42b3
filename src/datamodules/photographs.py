"""Patches of the photographs that scikit-image brings along: natural images without a download."""

import torch
from skimage import data
from skimage.color import rgb2gray
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.loaders import SplitDataModule
from src.utils.errors import check_range

TRAINING_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "coins", "moon", "rocket")
TEST_PHOTOGRAPH = "camera"


class Patches(Dataset):
    """Square patches at random places of photographs: "image", float32 (1, N, N) with values in [0, 1], and "index"."""

    def __init__(self, photographs: list[Tensor], size: int, count: int, seed: int) -> None:
        places = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)).tolist()
        self.patches = [_patch(photographs, size, place) for place in places]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.patches[index], "index": torch.tensor(index)}


def _patch(photographs: list[Tensor], size: int, place: list[float]) -> Tensor:
    photograph = photographs[int(place[0] * len(photographs))]
    row, column = (int(p * (n - size + 1)) for p, n in zip(place[1:], photograph.shape, strict=True))
    return photograph[None, row : row + size, column : column + size]


class PhotographsDataModule(SplitDataModule):
    """Grey patches of six photographs to train and validate with, and of a seventh to test with.

    Patches have ``size`` × ``size`` pixels; ``seed`` draws their places. ValueError for a size above 256.
    """

    def __init__(
        self,
        size: int = 64,
        num_train: int = 1024,
        num_val: int = 64,
        num_test: int = 64,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size)
        check_range(1, 256, size=size)  # every photograph has 256 rows and columns
        check_range(1, num_train=num_train, num_val=num_val, num_test=num_test)
        self.size = size
        self.sample_shape = (1, size, size)
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.seed = seed

    def setup(self, stage: str | None = None) -> None:
        """Cut the patches out: training and validation share their photographs."""
        training = [photograph(name) for name in TRAINING_PHOTOGRAPHS]
        sources = {"train": training, "val": training, "test": [photograph(TEST_PHOTOGRAPH)]}
        self.sets = {
            name: Patches(sources[name], self.size, count, self.seed + offset)
            for offset, (name, count) in enumerate(self.counts.items())
        }


def photograph(name: str) -> Tensor:
    """Return a photograph of scikit-image in grey, float32 (H, W) with values in [0, 1]."""
    pixels = getattr(data, name)()
    grey = rgb2gray(pixels) if pixels.ndim == 3 else pixels / 255
    return torch.from_numpy(grey).float()
