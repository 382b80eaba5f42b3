"""Images that a network restores, in files like those of its inputs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from src.datamodules.conversion import read_input
from src.runs.load import LoadedRun
from src.runs.predictions.jobs import Job, PredictionPlan
from src.runs.predictions.sources import Source
from src.utils.image_writing import output_name, write_stored


def restoration(run: LoadedRun, sources: Sequence[Source], folder: Path) -> PredictionPlan:
    """Return the plan that restores each image under its own name, see `output_name`.

    Data with files of many images restore such files themselves, by ``predict_file``, and name the results.
    """
    rename = getattr(run.datamodule, "prediction_name", output_name)
    write = restore_all if hasattr(run.datamodule, "predict_file") else restore
    jobs = []
    for source in sources:
        target = folder / source.name.with_name(rename(source.name.name))
        jobs.append(Job((source.path,), (target,), partial(write, run, source.path, target)))
    return PredictionPlan("restored images", jobs)


def restore_all(run: LoadedRun, path: Path, target: Path) -> None:
    """Restore all images of a file; raise ValueError if it has none like those of the training."""
    like = next(run.net.parameters())
    run.datamodule.predict_file(path, target, lambda images: run.task.infer(images.to(like)))


def restore(run: LoadedRun, path: Path, target: Path) -> None:
    """Restore an image, and write it in the format of its file with the same affine.

    Raises:
        ValueError: if it is no image like those of the training.
    """
    image = read_input(run.datamodule, path)
    restored = run(image.values)
    # One image of several channels is an image like any other, without an axis of channels.
    merged = len(restored) == 1 < len(image.values)
    write_stored(target, restored, path, None if merged else image.channel_axis, image.key)
