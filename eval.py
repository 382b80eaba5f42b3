"""Test a checkpoint: ``python eval.py ckpt=<run folder or checkpoint> [key=value ...]``.

The configuration is the one of the run that wrote the checkpoint; further arguments change it, for example
``trainer=gpu``, ``datamodule.num_test=50`` or ``run_dir=<folder for the results>``. A run folder means its best
checkpoint.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.utils.combinations import check_combinations
from src.utils.config import check_config
from src.utils.errors import ConfigError, full_traceback_wanted, user_errors
from src.utils.targets import check_targets

# A test saves no checkpoint, and must not touch those of the run.
TRAINING_CALLBACKS = ("best", "last", "interrupt")


def evaluate(config: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """Test ``checkpoint`` under ``config``, write test_table.csv and summary.json, and return what the latter holds.

    Raises:
        ValueError: for a configuration or checkpoint that cannot work.
    """
    started = time.perf_counter()
    check_config(config)
    check_targets(config)
    check_combinations(config)
    from src.utils.build import build
    from src.utils.checkpoints import check_architecture, read_checkpoint
    from src.utils.summary import print_table, summarise, write_summary

    run = build(config)
    check_architecture(read_checkpoint(checkpoint), run.task, config.model["_target_"])
    run.task.to(run.trainer.strategy.root_device)
    run.task.check_data(run.datamodule)
    tested = run.trainer.test(run.task, run.datamodule, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
    summary = summarise(run, dict(tested[0]), str(checkpoint), time.perf_counter() - started)
    if run.trainer.is_global_zero:
        write_summary(summary)
        print_table(summary, run.task.report(summary["metrics"]))
    return summary


def load(arguments: list[str]) -> tuple[DictConfig, Path]:
    """Return the configuration and the checkpoint that the command line asks for.

    Raises:
        ConfigError: for arguments that do not fit, naming the nearest key.
        ValueError: if there is no such checkpoint.
    """
    from src.utils.checkpoints import find_checkpoint, read_checkpoint, run_folder_of
    from src.utils.saved_config import with_overrides

    sources = [a.partition("=")[2] for a in arguments if a.startswith("ckpt=")]
    if len(sources) != 1:
        raise ConfigError(f"expected one ckpt=<run folder or checkpoint>, got {len(sources)}")
    path = find_checkpoint(sources[0], "best")
    saved = read_checkpoint(path)["config"]
    # A test has no curve to log; `logger=wandb` brings a logger back.
    saved["logger"] = None
    saved["trainer"]["enable_checkpointing"] = False
    saved["callbacks"] = {name: c for name, c in saved["callbacks"].items() if name not in TRAINING_CALLBACKS}
    saved["run_dir"] = str(run_folder_of(path) / "eval" / datetime.now().strftime(f"%Y-%m-%d_%H-%M-%S-{path.stem}"))
    return with_overrides(saved, [a for a in arguments if not a.startswith("ckpt=")]), path


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(__doc__)
        return
    with user_errors(full_traceback_wanted(arguments)):
        evaluate(*load(arguments))


if __name__ == "__main__":
    main()
