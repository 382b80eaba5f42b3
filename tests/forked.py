"""Run ``train.py`` in processes that start at once, because they are forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

import train

CONTEXT = multiprocessing.get_context("forkserver")
# Import once here; otherwise each process would take ten seconds to import them.
CALLBACKS = ("pictures.curves", "pictures.reconstructions", "progress", "test_table")
CONTEXT.set_forkserver_preload(
    [
        *("tests.forked", "tests.fakes", "src.runs.build", "src.runs.summary", "src.runs.csv_logger"),
        *("src.tasks.reconstruction", "src.models.iunet", "src.models.lifted"),
        *(f"src.callbacks.{name}" for name in CALLBACKS),
        *("pytorch_lightning", "torch._dynamo", "matplotlib.backends.backend_agg"),
    ]
)


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Start ``python train.py <arguments>`` and append its output to ``log``."""
    process = CONTEXT.Process(target=_run, args=(arguments, str(log)))
    process.start()
    return process


def _run(arguments: list[str], log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # so that Hydra looks for configs/ beside train.py
    os.chdir(Path(train.__file__).parent)
    sys.argv = ["train.py", *arguments]
    train.main()
