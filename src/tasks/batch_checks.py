"""Whether the batches of a data module are what a task takes; asked of the first one of each stage."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STAGES = {"train": "training", "val": "validation", "test": "test"}
# In mixed precision layers take these too.
HALF = {torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class Place:
    """Where a tensor is from, for messages.

    Attributes:
        stage: a key of STAGES.
        batch: the whole batch.
        dtypes: those of the network; none if they are not known.
    """

    stage: str
    batch: Mapping[str, Tensor]
    dtypes: Collection[torch.dtype]

    @property
    def is_training(self) -> bool:
        """Whether samples have exactly the size that the data module says."""
        return self.stage == "train"

    def expect(self, is_right: bool, key: str, what: str, got: object) -> None:
        """Raise ValueError, naming the batch and its key, unless something is right."""
        if not is_right:
            raise ValueError(f"expected {key!r} in the first {STAGES[self.stage]} batch to have {what}, got {got}")


class Field(ABC):
    """What a batch has under a key."""

    @abstractmethod
    def check(self, key: str, value: Tensor, place: Place) -> None:
        """Raise ValueError unless a tensor is such a field."""


@dataclass(frozen=True)
class Images(Field):
    """Images (B, C, *spatial) in the network's dtype; those of an evaluation may have any size.

    Args:
        shape: (C, *spatial) of a training sample.
        said_by: the attribute of the data module that says so.
        like: the key of other images, whose size these have in an evaluation, too; None if they have their own.
        integers: whether whole numbers may have an integer dtype.
    """

    shape: tuple[int, ...]
    said_by: str = "sample_shape"
    like: str | None = None
    integers: bool = False

    def check(self, key: str, value: Tensor, place: Place) -> None:
        got = tuple(value.shape)
        sizes = self.shape if place.is_training else (self.shape[0], *("any" for _ in self.shape[1:]))
        is_right = len(got) == 1 + len(sizes) and all(s in ("any", g) for s, g in zip(sizes, got[1:], strict=True))
        place.expect(is_right, key, f"shape (B, {', '.join(map(str, sizes))}), by the data's {self.said_by}", got)
        if self.like is not None:
            wanted = (len(place.batch[self.like]), self.shape[0], *place.batch[self.like].shape[2:])
            place.expect(got == wanted, key, f"shape {wanted}, the size of {self.like!r}", got)
        may_be = place.dtypes if value.is_floating_point() or not self.integers else {value.dtype}
        names = " or ".join(sorted(str(dtype) for dtype in set(place.dtypes) - HALF or place.dtypes))
        place.expect(not may_be or value.dtype in may_be, key, f"dtype {names}, like the network", value.dtype)


@dataclass(frozen=True)
class Labels(Field):
    """Classes from 0 to num_classes − 1: one for each image, int64 (B,), or, ``per_voxel``, integers (B, *spatial)."""

    num_classes: int
    per_voxel: bool = False

    def check(self, key: str, value: Tensor, place: Place) -> None:
        images = tuple(place.batch["image"].shape)
        wanted = (images[0], *images[2:]) if self.per_voxel else images[:1]
        each = "voxel" if self.per_voxel else "image"
        place.expect(
            tuple(value.shape) == wanted, key, f"shape {wanted}, one class for each {each}", tuple(value.shape)
        )
        _expect_integers(key, value, place)
        # The cross entropy of one class for each image takes no other integers.
        place.expect(self.per_voxel or value.dtype == torch.int64, key, "dtype torch.int64", value.dtype)
        if value.numel():
            low, high = (int(end) for end in value.aminmax())
            is_right = 0 <= low <= high < self.num_classes
            place.expect(is_right, key, f"classes from 0 to {self.num_classes - 1}", f"{low} to {high}")


@dataclass(frozen=True)
class Index(Field):
    """The number of each sample in its set, integers (B,)."""

    like: str

    def check(self, key: str, value: Tensor, place: Place) -> None:
        wanted = (len(place.batch[self.like]),)
        place.expect(tuple(value.shape) == wanted, key, f"shape {wanted}, one for each sample", tuple(value.shape))
        _expect_integers(key, value, place)


def check_batch(batch: Any, fields: Mapping[str, Field], stage: str, dtypes: Collection[torch.dtype]) -> None:
    """Check a batch, whose fields of labels wait for its device.

    Args:
        batch: as a data loader gave it.
        fields: by key, images first; beside them a batch has "index", which only an evaluation reads.
        stage: ``train``, ``val`` or ``test``.
        dtypes: of the images; none for any.

    Raises:
        ValueError: naming the key.
    """
    wanted = fields if stage == "train" else {**fields, "index": Index(next(iter(fields)))}
    named = f"expected the first {STAGES[stage]} batch to be a dict of tensors with {', '.join(wanted)}, got"
    if not isinstance(batch, Mapping):
        raise ValueError(f"{named} a {type(batch).__name__}")
    if missing := [key for key in wanted if key not in batch]:
        raise ValueError(f"{named} {', '.join(map(str, batch)) or 'no keys'}, without {', '.join(missing)}")
    for key in wanted:
        if not isinstance(batch[key], Tensor):
            raise ValueError(f"{named} a {type(batch[key]).__name__} as {key!r}")
    place = Place(stage, batch, dtypes)
    for key, field in wanted.items():
        field.check(key, batch[key], place)


def dtypes_of(net: nn.Module, is_mixed: bool) -> set[torch.dtype]:
    """Return the dtypes of the images that a network takes, none if it has no parameters that say so.

    In mixed precision, FSDP gives some parameters and all inputs half of their bits.
    """
    own = {parameter.dtype for parameter in net.parameters() if parameter.is_floating_point()}
    return own | HALF if own and is_mixed else own


def _expect_integers(key: str, value: Tensor, place: Place) -> None:
    is_integer = not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    place.expect(is_integer, key, "an integer dtype", value.dtype)
