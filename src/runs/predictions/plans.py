"""What each task predicts for files."""

from collections.abc import Sequence
from pathlib import Path

from src.runs.load import LoadedRun
from src.runs.predictions.flows import decoding, encoding, interpolating, sampling
from src.runs.predictions.images import restoration
from src.runs.predictions.jobs import PredictionPlan
from src.runs.predictions.options import PredictionOptions
from src.runs.predictions.sources import Source
from src.runs.predictions.tables import class_probabilities, log_likelihoods
from src.tasks.classification import Classification
from src.tasks.density import Density
from src.tasks.reconstruction import Reconstruction

PLANS = {Reconstruction: restoration, Classification: class_probabilities}


def plan_of(run: LoadedRun, sources: Sequence[Source], options: PredictionOptions) -> PredictionPlan:
    """Return what is to be written for the sources.

    Raises:
        ValueError: for a task that predicts nothing from files, and for a mode that does not fit the task.
    """
    folder = Path(options.output)
    if isinstance(run.task, Density):
        return _of_flow(run, sources, options, folder)
    if options.mode is not None:
        raise ValueError(f"expected mode={options.mode} for a flow, got a run of {type(run.task).__name__}")
    for kind, plan in PLANS.items():
        if isinstance(run.task, kind):
            return plan(run, sources, folder)
    names = ", ".join(kind.__name__ for kind in (*PLANS, Density))
    raise ValueError(f"expected a run of {names} to predict from files, got one of {type(run.task).__name__}")


def _of_flow(run: LoadedRun, sources: Sequence[Source], options: PredictionOptions, folder: Path) -> PredictionPlan:
    seed = run.config.seed
    if options.mode == "sample":
        return sampling(run, options.num_samples, options.temperature, seed, folder)
    if options.mode == "interpolate":
        return interpolating(run, sources, options.num_steps, options.path, folder)
    if options.mode == "log_likelihood":
        return log_likelihoods(run, sources, folder, seed)
    if options.mode is not None:
        return {"encode": encoding, "decode": decoding}[options.mode](run, sources, folder)
    raise ValueError("expected mode=sample, encode, decode, interpolate or log_likelihood for a flow, got none")
