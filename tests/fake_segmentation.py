"""Small segmented volumes; predictions read and write real NIfTI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.fakes import SplitLoaders

REGIONS = {"ET": (3,), "WT": (1, 2, 3), "TC": (1, 3)}
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
Item = dict[str, Tensor]


def nested_case(seed: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return an image (4, *shape) and its label map: nested boxes ET, TC, WT, each brighter in some channels.

    Every fifth case has no ET.
    """
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(shape, dtype=torch.long)
    low = [int(torch.randint(1, max(n // 4, 1) + 1, (), generator=generator)) for n in shape]
    for depth, value in enumerate((2, 1) if seed % 5 == 4 else (2, 1, 3)):
        box = tuple(slice(start + depth, start + n // 2 - depth) for start, n in zip(low, shape, strict=True))
        label[box] = value
    image = 0.2 * torch.randn((4, *shape), generator=generator)
    image += torch.stack([(label == 3) * 2.0, (label == 1) * 2.0, (label > 0) * 1.0, (label == 2) * 2.0])
    return image, label


class Cases(Dataset):
    """Crops of one size for training, else whole volumes of several sizes; item i is the same in every process."""

    def __init__(self, size: int, count: int, seed: int, whole: bool) -> None:
        self.size, self.count, self.seed, self.whole = size, count, seed, whole

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        # Larger and smaller than a window, and no multiple of it.
        shape = (self.size + 5 * index, self.size, self.size - 3) if self.whole else (self.size,) * 3
        image, label = nested_case(100 * self.seed + index, shape)
        return {"image": image, "label": label, "index": torch.tensor(index)}


class Scans(Dataset):
    """Every ``<case>.nii.gz`` of a folder, (D, H, W, 4)."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.nii.gz"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Item:
        image = np.asarray(nibabel.load(self.files[index]).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
        return {"image": torch.from_numpy(image).permute(3, 0, 1, 2).contiguous(), "index": torch.tensor(index)}


def write_scan(folder: Path, name: str, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Write a scan in the format of `Scans` and return its true label map."""
    image, label = nested_case(seed, shape)
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(image.permute(1, 2, 3, 0).numpy(), AFFINE), folder / f"{name}.nii.gz")
    return label


class TinyCases(SplitLoaders):
    """The interface of the BraTS datamodule, with data from :func:`nested_case`."""

    num_classes = 4
    class_names = ("background", "NCR", "ED", "ET")
    regions = REGIONS
    label_values = (0, 1, 2, 4)

    def __init__(
        self,
        size: int,
        num_train: int,
        num_val: int,
        num_test: int,
        batch_size: int = 1,
        predict_dir: str | None = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        self.size = size
        self.sample_shape = (4, size, size, size)
        self.counts = {"train": num_train, "val": num_val, "test": num_test}
        self.batch_size = batch_size
        self.predict_dir = predict_dir

    def case_name(self, split: str, index: int) -> str:
        if split == "predict":
            return self._scans().files[index].name.removesuffix(".nii.gz")
        return f"{split}_{index:03d}"

    def save_prediction(self, index: int, label: Tensor, folder: Path) -> Path:
        scan = nibabel.load(self._scans().files[index])
        values = np.array(self.label_values, dtype=np.uint8)[label.cpu().numpy()]
        path = folder / self._scans().files[index].name
        nibabel.save(nibabel.Nifti1Image(values, scan.affine), path)  # type: ignore[attr-defined]
        return path

    def _scans(self) -> Scans:
        if self.predict_dir is None or not Path(self.predict_dir).is_dir():
            raise ValueError(f"expected datamodule.predict_dir to be a folder of scans, got {self.predict_dir!r}")
        return Scans(Path(self.predict_dir))

    def _loader(self, name: str, seed: int) -> DataLoader:
        training = name == "train"
        dataset = Cases(self.size, self.counts[name], seed, whole=not training)
        return DataLoader(dataset, self.batch_size if training else 1, shuffle=training)

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(self._scans(), batch_size=1)


class Linear(nn.Module):
    """Per voxel, the class from which :func:`nested_case` made the channels; perfect up to the noise."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([[0.0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0]])
        self.weight = nn.Parameter(10 * weights)
        self.bias = nn.Parameter(torch.tensor([8.0, -5, -5, -5]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,bcdhw->bodhw", self.weight, x) + self.bias[:, None, None, None]


def segmentation_overrides(run_dir: object, *more: str) -> list[str]:
    """Return the command-line arguments of a run on :class:`TinyCases` that takes seconds."""
    return [
        "task=segmentation",
        "datamodule._target_=tests.fake_segmentation.TinyCases",
        "+datamodule.size=16",
        "datamodule.num_train=4",
        "datamodule.num_val=2",
        "datamodule.num_test=3",
        "datamodule.batch_size=2",
        "+datamodule.predict_dir=null",
        "model.in_channels=4",
        "model.out_channels=4",
        "network.blowup=8",
        "network.num_couplings=1",
        "network.num_levels=2",
        "trainer.max_epochs=2",
        "callbacks.images.num_cases=2",
        "logger=csv",
        f"run_dir={run_dir}",
        *more,
    ]
