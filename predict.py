"""Predict label maps: ``python predict.py ckpt=<run folder or checkpoint> output=<folder> [key=value ...]``.

Writes one NIfTI file per case of the datamodule's prediction set, with the affine of its scan. The configuration comes
from the checkpoint. Further arguments change it, for example ``datamodule.predict_dir=<folder of cases>``,
``trainer=gpu`` or ``task.overlap=0.5``. A run folder stands for its best checkpoint. Classes from outside this project
need ``trust=<their package>``, because building them runs their code. Cases with a label map in the folder are skipped,
so an interrupted prediction continues where it stopped; ``overwrite=true`` predicts them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig

from src.runs.folder import PREDICTIONS
from src.runs.saved_run import SavedRunOptions, rebuild, saved_run
from src.utils.command_line import parse, run_command_line

if TYPE_CHECKING:
    from src.runs.build import Run


@dataclass(frozen=True, kw_only=True)
class Options(SavedRunOptions):
    """Options of predict.py; the text above explains them."""

    output: Annotated[str, "<folder>"]
    overwrite: bool = False


def predict(config: DictConfig, checkpoint: Path, overwrite: bool = False) -> int:
    """Write the label maps into ``config.run_dir`` and return how many this process wrote.

    Raises:
        ValueError: for a configuration, a checkpoint or cases that cannot work, and for a folder with label maps of
            another checkpoint.
    """
    run = rebuild(config, checkpoint)
    from src.callbacks.prediction_writer import PredictionWriter
    from src.utils.processes import own_processes

    if not hasattr(run.datamodule, "save_prediction"):
        raise ValueError(f"predict.py needs a segmentation datamodule, got {type(run.datamodule).__name__}")
    writer = PredictionWriter(Path(config.run_dir), _origin(config, checkpoint), overwrite)
    run.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    if not overwrite:
        _skip_finished_cases(run, writer.folder)
    with own_processes(run.trainer):
        run.trainer.predict(
            run.task, run.datamodule, ckpt_path=str(checkpoint), weights_only=True, return_predictions=False
        )
    print(f"{writer.num_written} label maps written to {writer.folder}")
    return writer.num_written


def _origin(config: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """Return everything that a label map depends on, besides its scan."""
    from src.runs.checkpoints import read_checkpoint

    origin = {"checkpoint": str(checkpoint.resolve()), "steps": read_checkpoint(checkpoint)["global_step"]}
    return origin | {key: value for key, value in config.task.items() if key in ("overlap", "blending")}


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


def load(arguments: list[str]) -> tuple[DictConfig, Path, bool]:
    """Return the configuration, the checkpoint and whether to overwrite, from the command line.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest key.
        ValueError: if there is no such checkpoint.
    """
    options, overrides = parse(Options, arguments)
    config, path = saved_run(options, overrides, PREDICTIONS)
    config.run_dir = options.output
    return config, path, options.overwrite


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, lambda arguments: predict(*load(arguments)))


if __name__ == "__main__":
    main()
