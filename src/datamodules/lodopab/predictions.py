"""Reconstructions of files of LoDoPaB-CT's observations, as its challenge reads them."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from src.datamodules.lodopab.files import (
    DATASET,
    SLICES_PER_BLOCK,
    LodopabGeometry,
    check_header,
    num_slices,
    read_slices,
    to_tensor,
)
from src.utils.files import atomic_write


def prediction_name(name: str) -> str:
    """Return the name of the reconstructions of a file: ``observation_test_000.hdf5`` gives ``reconstruction_…``."""
    kind, _, rest = name.partition("observation")
    return f"{kind}reconstruction{rest}" if rest else f"reconstruction_{name}"


def write_reconstructions(
    source: Path, target: Path, geometry: LodopabGeometry, filter_name: str | None, infer: Callable[[Tensor], Tensor]
) -> None:
    """Write what a network makes of all observations of a file, as float32 (n, N, N) in HDF5.

    Args:
        source: an HDF5 file of observations (n, V, S).
        target: the file to write.
        geometry: of the observations.
        filter_name: of the filtered backprojections that the network gets; None for the observations themselves.
        infer: the network, from (B, 1, …) to (B, 1, N, N).

    Raises:
        FileError: if the source is no such file, or has infinite or NaN values.
    """
    check_header(source, geometry.observation_shape, 1)
    count = num_slices(source)
    images = np.empty((count, *geometry.truth_shape), np.float32)
    for start in range(0, count, SLICES_PER_BLOCK):
        block = slice(start, min(start + SLICES_PER_BLOCK, count))
        inputs = to_tensor(read_slices(source, block.start, block.stop))
        if filter_name is not None:
            inputs = geometry.reconstruct(inputs, filter_name)
        with torch.inference_mode():
            images[block] = torch.cat([infer(one[None, None]) for one in inputs])[:, 0].float().cpu().numpy()
    with atomic_write(target) as stream, h5py.File(stream, "w") as file:
        file[DATASET] = images
