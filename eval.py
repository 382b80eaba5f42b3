"""Test a checkpoint: ``python eval.py ckpt=<run folder or checkpoint> [key=value ...]``.

The configuration comes from the checkpoint. Further arguments change it, for example ``trainer=gpu``,
``datamodule.num_test=50`` or ``run_dir=<folder for the results>``. A run folder stands for its best checkpoint. Classes
from outside this project need ``trust=<their package>``, because building them runs their code.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.runs.folder import EVALUATIONS
from src.runs.saved_run import SavedRunOptions, rebuild, saved_run
from src.utils.command_line import parse, run_command_line


def evaluate(config: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """Test ``checkpoint`` under ``config``, write test_table.csv and summary.json, and return the summary.

    Raises:
        ValueError: for a configuration or checkpoint that cannot work.
    """
    started = time.perf_counter()
    run = rebuild(config, checkpoint)
    from src.runs.summary import print_table, summarise, write_summary
    from src.utils.processes import own_processes

    with own_processes(run.trainer):
        tested = run.trainer.test(run.task, run.datamodule, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
    summary = summarise(run, dict(tested[0]), str(checkpoint), time.perf_counter() - started)
    if run.trainer.is_global_zero:
        write_summary(summary)
        print_table(summary, run.task.report(summary["metrics"]))
    return summary


def load(arguments: list[str]) -> tuple[DictConfig, Path]:
    """Return the configuration and the checkpoint that the command line asks for, see `saved_run`."""
    return saved_run(*parse(SavedRunOptions, arguments), EVALUATIONS)


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, lambda arguments: evaluate(*load(arguments)))


if __name__ == "__main__":
    main()
