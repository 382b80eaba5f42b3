"""The filtered backprojections of LoDoPaB-CT's observations, computed once."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from src.datamodules.cached_arrays import (
    check_array,
    fingerprint,
    mapped_array,
    read_record,
    write_array,
    write_record,
)
from src.datamodules.cached_files import folder_name, make_missing, run_parallel
from src.datamodules.lodopab_files import LodopabGeometry, Shard, read_slices, to_tensor
from src.utils.reading import FileError, reading

# Changes whenever the same observations would give other reconstructions.
RECONSTRUCTION_VERSION = 1
# Bounds the memory: 16 observations of the published size are 33 MB.
SLICES_PER_BLOCK = 16
WHAT = "the record of filtered backprojections"


class LodopabCache:
    """A .npy file, float32 (n, N, N), for each pair of files, and a record, written last, of what it was made from.

    When the sizes or times of the source files change, or more slices are asked for, the file is made again. A record
    of damaged files has their problems instead.
    """

    def __init__(self, cache_dir: Path, data_dir: Path, geometry: LodopabGeometry, filter_name: str) -> None:
        parameters = {
            "reconstruction_version": RECONSTRUCTION_VERSION,
            "data_dir": str(data_dir.resolve()),
            "observation_shape": geometry.observation_shape,
            "size": geometry.size,
            "filter": filter_name,
        }
        self.geometry = geometry
        self.filter_name = filter_name
        self.folder = cache_dir / folder_name(f"{data_dir.resolve().name}-{filter_name}", parameters)

    def prepare(self, shards: Sequence[Shard], num_workers: int, device: str) -> list[str]:
        """Reconstruct what is missing, outdated or damaged, and return the problems of the source files.

        ``num_workers`` processes do that, or with 0 this one. ValueError if the folder cannot be written.
        """
        build = functools.partial(
            _build, folder=self.folder, geometry=self.geometry, filter_name=self.filter_name, device=device
        )
        make_missing(
            self.folder,
            f"reconstructs slices in {self.folder}",
            lambda: self._find_unusable(shards),
            lambda missing: run_parallel(build, missing, num_workers, "Reconstructing files of slices"),
        )
        return [problem for shard in shards for problem in self._problems(shard) or []]

    def slices(self, shard: Shard) -> NDArray[Any]:
        """Return the reconstructions of a pair of files, mapped from the disk; raise FileError if they are damaged."""
        return mapped_array(_array_path(self.folder, shard), "filtered backprojections")

    def _find_unusable(self, shards: Sequence[Shard]) -> dict[Shard, str | None]:
        unusable: dict[Shard, str | None] = {}
        for shard in shards:
            try:
                if self._problems(shard) is None:
                    unusable[shard] = None
            except FileError as error:
                unusable[shard] = str(error)
        return unusable

    def _problems(self, shard: Shard) -> list[str] | None:
        """Return the problems of a pair of files, None if it has to be reconstructed; raise FileError for damage."""
        path = _array_path(self.folder, shard)
        record = read_record(_record_path(path), WHAT)
        if record is None:
            return None
        with reading(_record_path(path), WHAT):
            if record["sources"] != fingerprint(shard[:2]) or record["count"] < shard.length:
                return None
            if not record["problems"]:
                check_array(path, (record["count"], *self.geometry.truth_shape))
            return list(record["problems"])


def _build(shard: Shard, folder: Path, geometry: LodopabGeometry, filter_name: str, device: str) -> None:
    """Check the values of a pair of files and reconstruct its slices, or record what is wrong."""
    path = _array_path(folder, shard)
    record: dict[str, Any] = {"sources": fingerprint(shard[:2]), "count": shard.length, "problems": []}
    blocks = []
    for start in range(0, shard.length, SLICES_PER_BLOCK):
        stop = min(start + SLICES_PER_BLOCK, shard.length)
        try:
            read_slices(shard.truth, start, stop)
        except FileError as error:
            record["problems"].append(str(error))
        try:
            observations = to_tensor(read_slices(shard.observation, start, stop)).to(device)
            blocks.append(geometry.reconstruct(observations, filter_name).cpu())
        except FileError as error:
            record["problems"].append(str(error))
    if not record["problems"]:
        write_array(path, torch.cat(blocks).numpy())
    write_record(_record_path(path), record)


def _array_path(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.observation.stem.replace('observation', 'fbp')}.npy"


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")
