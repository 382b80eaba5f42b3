"""Predict with a checkpoint: ``python predict.py ckpt=<run folder or checkpoint> output=<folder> [key=value ...]``.

    input=…          an image file or a folder of them: NIfTI, NumPy, HDF5, TIFF, PNG, MHA, NRRD; of a run on an image
                     folder, all kinds of images that it trains with
    mode=…           of a flow: sample | encode | decode | interpolate | log_likelihood
    num_samples=16   of mode=sample, as temperature=1.0; seed=1 draws others
    num_steps=9      of mode=interpolate: images from one to the next in the order of their names, both counted
    path=spherical   of mode=interpolate: keep the length of latents on the way; otherwise the path is straight
    overwrite=true   replace predictions that exist; without it, an interrupted prediction continues where it stopped
    trust=<package>  build classes from outside this project, which runs their code

A reconstruction writes restored images in the format and with the affine of its inputs, a classifier
``probabilities.csv``, a flow images, latents as .npy, or ``log_likelihood.csv``. A segmentation writes one label map
per case in the place of its scan; its input is a folder of cases like those of the training, by default
``datamodule.predict_dir``. Images that are larger than those of the training are predicted window by window.

The configuration comes from the checkpoint, and a run folder stands for its best checkpoint. Further arguments change
it, for example ``trainer=gpu`` or ``task.overlap=0.5``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from src.runs.folder import PREDICTIONS
from src.runs.predictions.options import PredictionOptions
from src.runs.predictions.sources import find_sources, input_endings
from src.runs.saved_run import check_no_training, rebuild, saved_run
from src.utils.command_line import parse, run_command_line
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from src.runs.build import Run


def predict(config: DictConfig, checkpoint: Path, options: PredictionOptions) -> int:
    """Write the predictions and return how many this process wrote.

    Raises:
        ValueError: for a configuration, a checkpoint, files or cases that cannot work, and for a folder with
            predictions of another checkpoint.
    """
    run = rebuild(config, checkpoint)
    from src.runs.predictions.origin import origin_of

    origin = origin_of(config, checkpoint, options.input)
    if _reads_cases(config):
        return _predict_cases(run, checkpoint, options, origin)
    from src.runs.predictions.predict_files import predict_files

    return predict_files(run, checkpoint, options, origin)


def _reads_cases(config: DictConfig) -> bool:
    """Whether the datamodule itself reads what is predicted: scans of several files each."""
    return "predict_dir" in config.datamodule


def _predict_cases(run: Run, checkpoint: Path, options: PredictionOptions, origin: dict[str, Any]) -> int:
    from src.callbacks.prediction_writer import PredictionWriter
    from src.utils.processes import own_processes

    writer = PredictionWriter(Path(options.output), origin, options.overwrite)
    run.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    if not options.overwrite:
        _skip_finished_cases(run, writer.folder)
    with own_processes(run.trainer):
        run.trainer.predict(
            run.task, run.datamodule, ckpt_path=str(checkpoint), weights_only=True, return_predictions=False
        )
    print(f"{writer.num_written} label maps written to {writer.folder}")
    return writer.num_written


def _skip_finished_cases(run: Run, folder: Path) -> None:
    from src.callbacks.prediction_writer import only_missing

    datamodule: Any = run.datamodule
    loader = datamodule.predict_dataloader

    def missing() -> Any:
        cases = loader()
        rest: Any = only_missing(cases, datamodule.case_name, folder)
        total, left = len(cases.dataset), len(rest.dataset)
        if left < total and run.trainer.is_global_zero:
            print(f"{folder} already has {total - left} of {total} cases (overwrite=true replaces them)")
        return rest

    # An attribute that hides the method: Lightning calls it after the data are prepared.
    datamodule.predict_dataloader = missing


def load(arguments: list[str]) -> tuple[DictConfig, Path, PredictionOptions]:
    """Return the configuration, the checkpoint and this program's own options, from the command line.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest key, an input without images, and the folder of
            a training as output.
        ValueError: if there is no such checkpoint.
    """
    options, overrides = parse(PredictionOptions, arguments)
    check_no_training("output", options.output)
    config, path = saved_run(options, overrides, PREDICTIONS)
    config.run_dir = options.output
    if _reads_cases(config):
        if options.mode is not None:
            raise ConfigError(f"expected mode={options.mode} for a flow, got a run of a segmentation")
        if options.input is not None:
            config.datamodule.predict_dir = str(options.input)
    elif options.input is not None:
        from hydra.utils import get_object

        find_sources(options.input, input_endings(get_object(config.datamodule["_target_"]), options.mode))
    elif options.mode is None:
        raise ConfigError("expected input=<image file or folder>, or mode=sample for a flow, got none")
    return config, path, options


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, lambda arguments: predict(*load(arguments)))


if __name__ == "__main__":
    main()
