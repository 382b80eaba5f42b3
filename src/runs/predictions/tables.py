"""Tables with a row for each image: the probabilities of its classes, or its likelihood under a flow."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.datamodules.conversion import read_input
from src.models.density import LogLikelihood
from src.runs.load import LoadedRun
from src.runs.predictions.jobs import Job, PredictionPlan
from src.runs.predictions.sources import Source
from src.runs.predictions.table_file import Row, TableFile
from src.utils.random_stream import own_stream


def class_probabilities(run: LoadedRun, sources: Sequence[Source], folder: Path) -> PredictionPlan:
    """Return the plan of ``probabilities.csv``: each file, its likeliest class, and the probability of each class."""
    names = list(run.datamodule.class_names)

    def row(path: Path) -> Row:
        probabilities = run(read_input(run.datamodule, path).values)
        return [names[int(np.argmax(probabilities))], *probabilities.tolist()]

    return _table(folder / "probabilities.csv", ["prediction", *names], sources, row)


def log_likelihoods(run: LoadedRun, sources: Sequence[Source], folder: Path, seed: int) -> PredictionPlan:
    """Return the plan of ``log_likelihood.csv``: each file, log p in nats, bits per dimension, the terms in nats.

    Each image gets the same dequantisation noise, which ``seed`` draws.
    """
    net: Any = run.net

    def row(path: Path) -> Row:
        x = run.preprocess(read_input(run.datamodule, path).values)
        with torch.inference_mode(), own_stream(seed, x.device):
            likelihood = net.log_likelihood(x)
        return [float(value) for value in (likelihood.total, net.bits_per_dim(likelihood.total), *likelihood)]

    columns = ["log_likelihood_nats", "bits_per_dim", *(f"{part}_nats" for part in LogLikelihood._fields)]
    return _table(folder / "log_likelihood.csv", columns, sources, row)


def _table(path: Path, columns: Sequence[str], sources: Sequence[Source], row: Callable[[Path], Row]) -> PredictionPlan:
    table = TableFile(path, columns)

    def add(source: Source) -> None:
        table.add(source.name.as_posix(), row(source.path))

    jobs = [Job((source.path,), (), partial(add, source), source.name.as_posix()) for source in sources]
    return PredictionPlan("rows", jobs, table)
