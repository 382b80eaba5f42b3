"""Predictions for files, from a checkpoint to the last of them."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.runs.build import Run
from src.runs.checkpoints import read_checkpoint
from src.runs.load import LoadedRun, load_weights
from src.runs.predictions.folder import PredictionFolder
from src.runs.predictions.options import PredictionOptions
from src.runs.predictions.plans import plan_of
from src.runs.predictions.sources import find_sources, input_endings, targets_note
from src.utils.errors import say


def predict_files(run: Run, checkpoint: Path, options: PredictionOptions, origin: dict[str, Any]) -> int:
    """Write what the run's task predicts for the files of ``options.input``; return the number of predictions.

    Device and precision are those of the run's trainer; one process does the work.

    Raises:
        ValueError: for several processes, a task or options that do not fit, files of another origin in the folder,
            and images unlike those of the training, after the others.
    """
    if run.trainer.world_size > 1:
        raise ValueError(f"expected trainer.devices=1 with input=…, got {run.trainer.world_size} processes")
    content = read_checkpoint(checkpoint)
    load_weights(run.task, content, run.config)
    run.task.to(run.trainer.strategy.root_device).eval()
    loaded = LoadedRun(run.config, checkpoint, run.task, content)
    endings = input_endings(run.datamodule, options.mode)
    sources = [] if options.input is None else find_sources(options.input, endings)
    plan = plan_of(loaded, sources, options)
    plan.check(options.overwrite)
    if options.input is not None and (note := targets_note(run.datamodule, options.input, sources)):
        say(note)
    folder = PredictionFolder(Path(options.output), origin | _choices(run.config, options), plan.what)
    if not options.overwrite and (plan.is_started() or folder.note.is_file()):
        folder.check_origin()
    folder.begin(plan.files())
    try:
        with run.trainer.precision_plugin.forward_context():
            done = plan.run(options.overwrite)
    finally:  # also beside images that are refused
        reads_images = sources and options.mode != "decode"
        for note in getattr(loaded.datamodule, "input_notes", list)() if reads_images else []:
            say(f"note: {note}")
    print(f"{done} {plan.what} written to {options.output if plan.table is None else plan.table.path}")
    return done


def _choices(config: DictConfig, options: PredictionOptions) -> dict[str, Any]:
    """Return what the files depend on besides the checkpoint and the images."""
    if options.mode is None:
        return {}
    path = {"num_steps": options.num_steps, "path": options.path} if options.mode == "interpolate" else {}
    return {"mode": options.mode, "seed": config.seed, "temperature": options.temperature, **path}
