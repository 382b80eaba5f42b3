"""What a normalizing flow makes of images and latents: codes, images of codes, samples, interpolations."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.datamodules.conversion import read_input
from src.runs.load import LoadedRun
from src.runs.predictions.jobs import Job, PredictionPlan
from src.runs.predictions.sources import Source
from src.tasks.latent_path import interpolations
from src.utils.files import atomic_write
from src.utils.image_files import read_stored
from src.utils.image_writing import grey_ending, write_grey
from src.utils.random_stream import own_stream


def encoding(run: LoadedRun, sources: Sequence[Source], folder: Path) -> PredictionPlan:
    """Return the plan that writes the latents of each image as ``<name>.npy``, float32 (C, *spatial)."""

    def encode(path: Path, target: Path) -> None:
        latent = run(read_input(run.datamodule, path).values)
        with atomic_write(target) as file:
            np.save(file, latent)

    targets = [folder / f"{source.stem}.npy" for source in sources]
    jobs = [Job((s.path,), (t,), partial(encode, s.path, t)) for s, t in zip(sources, targets, strict=True)]
    return PredictionPlan("latents", jobs)


def decoding(run: LoadedRun, sources: Sequence[Source], folder: Path) -> PredictionPlan:
    """Return the plan that writes the image of the latents (C, *spatial) in each file, see `write_grey`."""
    net: Any = run.net

    def decode(path: Path) -> Tensor:
        latent = np.array(read_stored(path).values)
        if latent.shape != tuple(net.latent_shape) or latent.dtype.kind != "f":
            raise ValueError(
                f"expected a latent of shape {tuple(net.latent_shape)} in floating point, as mode=encode writes it, "
                f"got {latent.dtype} of shape {latent.shape}"
            )
        return net.decode(torch.from_numpy(latent[None]).to(next(net.parameters())))

    jobs = [_job(run, (s.path,), [folder / str(s.stem)], partial(decode, s.path)) for s in sources]
    return PredictionPlan("images", jobs, sources="latents")


def sampling(run: LoadedRun, num_samples: int, temperature: float, seed: int, folder: Path) -> PredictionPlan:
    """Return the plan that writes images of latents from N(0, temperature²), see `write_grey`.

    The latent of a sample depends on the seed and its own number only.
    """
    net: Any = run.net

    def sample(index: int) -> Tensor:
        (entropy,) = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
        with own_stream(int(entropy >> np.uint64(1)), next(net.parameters()).device):
            return net.sample(1, temperature)

    jobs = [_job(run, (), [folder / f"sample-{index:04d}"], partial(sample, index)) for index in range(num_samples)]
    return PredictionPlan("samples", jobs)


def interpolating(run: LoadedRun, sources: Sequence[Source], num_steps: int, path: str, folder: Path) -> PredictionPlan:
    """Return the plan that writes the images on paths between the latents of images 1 and 2, 3 and 4, ….

    The path is "straight" or "spherical". A pair's images are ``<first>-<second>-<step>``, see `write_grey`; the first
    and the last one are reconstructions.

    Raises:
        ValueError: for an odd number of images.
    """
    if len(sources) % 2:
        raise ValueError(f"expected an even number of images to interpolate between, got {len(sources)}")
    net: Any = run.net

    def interpolate(*ends: Path) -> Tensor:
        x = torch.cat([run.preprocess(read_input(run.datamodule, path).values) for path in ends])
        (images,) = interpolations(net.encode, net.decode, x, num_steps, path).values()
        return images

    jobs = []
    for first, second in zip(sources[::2], sources[1::2], strict=True):
        stems = [folder / f"{first.stem}-{second.stem.name}-{step:02d}" for step in range(num_steps)]
        paths = (first.path, second.path)
        jobs.append(_job(run, paths, stems, partial(interpolate, *paths)))
    return PredictionPlan("interpolations", jobs)


def _job(run: LoadedRun, sources: tuple[Path, ...], stems: Sequence[Path], images: Callable[[], Tensor]) -> Job:
    """Return the job that writes images (B, C, *spatial), real numbers from k to below k + 1 for the grey value k."""
    net: Any = run.net
    targets = tuple(stem.with_name(stem.name + grey_ending(net.sample_shape, net.num_bins)) for stem in stems)

    def work() -> None:
        with torch.inference_mode():
            values = images().float().cpu().numpy()
        for image, target in zip(values, targets, strict=True):
            write_grey(target, image, net.num_bins)

    return Job(sources, targets, work)
