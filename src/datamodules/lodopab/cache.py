"""The filtered backprojections of LoDoPaB-CT's observations, computed once."""

import functools
from pathlib import Path

import torch

from src.datamodules.cached_files import folder_name
from src.datamodules.case_cache import CachedCase, CaseCache, Preprocessed
from src.datamodules.lodopab.files import SLICES_PER_BLOCK, LodopabGeometry, Shard, read_slices, to_tensor
from src.datamodules.problems import Problem
from src.utils.reading import FileError

# Changes whenever the same observations would give other reconstructions.
RECONSTRUCTION_VERSION = 1
# The array of a pair of files: (n, N, N).
FBP = "fbp"

CachedShard = CachedCase[Shard]


def lodopab_cache(
    cache_dir: Path, data_dir: Path, geometry: LodopabGeometry, filter_name: str, device: str
) -> CaseCache[Shard]:
    """Return the cache of a folder's filtered backprojections, which are made on a device."""
    parameters = {
        "reconstruction_version": RECONSTRUCTION_VERSION,
        "data_dir": str(data_dir.resolve()),
        "observation_shape": geometry.observation_shape,
        "size": geometry.size,
        "filter": filter_name,
    }
    folder = cache_dir / folder_name(f"{data_dir.resolve().name}-{filter_name}", parameters)
    reconstruct = functools.partial(_reconstruct, geometry=geometry, filter_name=filter_name, device=device)
    return CaseCache(folder, reconstruct, "Reconstructing files of slices")


def _reconstruct(
    shard: Shard, geometry: LodopabGeometry, filter_name: str, device: str
) -> Preprocessed | list[Problem]:
    """Check the values of a pair of files and reconstruct its slices."""
    problems, blocks = [], []
    for start in range(0, shard.length, SLICES_PER_BLOCK):
        stop = min(start + SLICES_PER_BLOCK, shard.length)
        try:
            read_slices(shard.truth, start, stop)
        except FileError as error:
            problems.append(Problem(shard.name, shard.truth.name, str(error)))
        try:
            observations = to_tensor(read_slices(shard.observation, start, stop)).to(device)
            blocks.append(geometry.reconstruct(observations, filter_name).cpu())
        except FileError as error:
            problems.append(Problem(shard.name, shard.observation.name, str(error)))
    return problems or Preprocessed({FBP: torch.cat(blocks).numpy()}, {})
