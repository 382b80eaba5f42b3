"""Train and test a network: ``python train.py experiment=ct_postproc model=unet seed=1``.

``python train.py --help`` lists the choices, ``experiment=?`` the experiments with their time and memory.
``python train.py resume=<run folder>`` continues a run with its configuration; other arguments change it.
``resume=auto`` continues the newest unfinished run that the other arguments describe. Classes from outside this project
need ``trust=<their package>``, because building them runs their code.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from src.utils.command_line import parse, run_command_line
from src.utils.errors import USER_ERROR, ConfigError, JobFailed, full_traceback_wanted, say, user_errors

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from src.runs.build import Run

# Everything else is imported where it is used, so that --help, a typo and Ctrl-C are answered immediately.


@dataclass(frozen=True)
class ResumeOptions:
    """Options of a resumed run; the text above explains them."""

    resume: Annotated[str, "<run folder or checkpoint>"]
    trust: list[str] = field(default_factory=list)


def train(config: DictConfig, checkpoint: str | None = None) -> dict[str, Any]:
    """Train, test, write summary.json and return its content.

    Args:
        config: the composed configuration; ``run_dir`` is filled in.
        checkpoint: of the run to continue; None starts a new run.

    Raises:
        ValueError: for a configuration or checkpoint that cannot work, before data are generated.
        SystemExit: with 128 + n after signal n, which is 130 for Ctrl-C and 143 for SIGTERM.
    """
    started = time.perf_counter()
    from src.config.checks import checked
    from src.runs.folder import check_is_free, choose_run_dir

    config.run_dir = choose_run_dir(checked(config))
    from src.runs.build import build
    from src.runs.interrupt import ending
    from src.runs.lock import only_process
    from src.runs.summary import print_table, summarise, write_summary
    from src.utils.processes import own_processes

    run = build(config)
    run.check_data()
    with only_process(config.run_dir) if run.trainer.is_global_zero else nullcontext():
        if run.trainer.is_global_zero:  # the first process may have begun the run when another one looks
            check_is_free(config.run_dir, checkpoint)
        if checkpoint is not None:
            _go_on_from(run, Path(checkpoint))
        with ending(run), own_processes(run.trainer):
            metrics, best = _fit_and_test(run, checkpoint)
            summary = summarise(run, metrics, best, time.perf_counter() - started)
            if run.trainer.is_global_zero:
                write_summary(summary)
                print_table(summary, run.task.report(summary["metrics"]))
            for logger in run.loggers():
                logger.finish(summary)
    return summary


def _go_on_from(run: Run, checkpoint: Path) -> None:
    """Check that the checkpoint fits, and tell the data and the loggers where it stands; Lightning loads the rest."""
    from src.callbacks.weight_average import check_average_goes_on
    from src.runs.checkpoints import check_architecture, read_checkpoint, restore_data
    from src.runs.kept_settings import check_kept_settings

    content = read_checkpoint(checkpoint)
    check_architecture(content, run.task, run.config)
    check_kept_settings(content, run.config, run.task)
    check_average_goes_on(content, run.callbacks.values())
    restore_data(content, run.datamodule)
    for logger in run.loggers():
        logger.go_on_from(content["global_step"])


def _fit_and_test(run: Run, checkpoint: str | None) -> tuple[dict[str, float], str | None]:
    from src.runs.checkpoints import validated

    if run.config.fit:
        run.trainer.fit(run.task, run.datamodule, ckpt_path=checkpoint, weights_only=True)
    metrics = run.state.metrics(run.trainer)
    best = run.best_checkpoint()
    if best is not None and run.trainer.is_global_zero:
        metrics.update(validated(Path(best)))  # of the network that is tested, not of the last one
    if run.config.test:
        tested = run.trainer.test(run.task, run.datamodule, ckpt_path=best, weights_only=True, verbose=False)
        metrics.update(tested[0])
    return metrics, best


def _resume(arguments: list[str]) -> None:
    from src.config.saved import trusted_config
    from src.runs.checkpoints import find_checkpoint, read_checkpoint
    from src.runs.folder import run_folder_of
    from src.runs.formats import explaining_age
    from src.runs.unfinished import newest_unfinished

    options, overrides = parse(ResumeOptions, arguments)
    source = options.resume
    if source == "auto":
        source = str(newest_unfinished(overrides))
        print(f"resume=auto: resuming {source}", flush=True)
    path = find_checkpoint(source)
    # Lightning starts the other processes with this command line: they must not look for the newest run again.
    sys.argv[1:] = [f"resume={path}", *(f"trust={module}" for module in options.trust), *overrides]
    content = read_checkpoint(path)
    saved = content["config"] | {"run_dir": str(run_folder_of(path)), "resume": str(path)}
    with explaining_age(content, path):
        config = trusted_config(saved, overrides, options.trust)
        if not config.fit:
            raise ConfigError(
                f"expected fit=true to resume a training; to test a checkpoint: python eval.py ckpt={path}"
            )
        train(config, str(path))


def _train_one_of_many(config: DictConfig, show_traceback: bool) -> None:
    """Train in a job of a multirun. If it fails, say why; Hydra keeps an error until all jobs are done.

    Raises:
        JobFailed: without a cause, which would hold the memory of the failed training.
        SystemExit: after a signal, which ends all jobs.
    """
    failed = False
    try:
        with user_errors(show_traceback):
            train(config)
    except SystemExit as end:
        failed = end.code == USER_ERROR
        if not failed:
            raise
    except Exception:
        traceback.print_exc()
        failed = True
    finally:
        # Hydra would print the JobFailed, after the last job.
        os.environ["HYDRA_FULL_ERROR"] = "1"
    if failed:
        raise JobFailed


def _train_new(arguments: list[str]) -> None:
    from src.config.checks import check_no_flags

    check_no_flags(arguments)
    show_traceback = full_traceback_wanted(arguments)
    if not show_traceback:
        # Otherwise Hydra prints its errors itself, and they cannot be explained.
        os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from src.config.choices import kept_learning_rate
    from src.config.composition import tell_choices

    @hydra.main(version_base="1.3", config_path="configs", config_name="train")
    def job(config: DictConfig) -> None:
        if not show_traceback:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        # Lightning starts the other processes of a distributed run with this command line. It must be this job's own,
        # also in a multirun, and Lightning must not look for the config folder, which Hydra does not write here.
        sys.argv[1:] = list(HydraConfig.get().overrides.task)
        tell_choices(config, HydraConfig.get())
        is_one_of_many = HydraConfig.get().mode == RunMode.MULTIRUN
        HydraConfig.instance().cfg = None
        note = kept_learning_rate(sys.argv[1:], config)
        if note is not None:
            say(note)
        if is_one_of_many:
            _train_one_of_many(config, show_traceback)
            return
        with user_errors(show_traceback):
            train(config)

    try:
        job()
    except JobFailed:
        sys.exit(USER_ERROR)


def _help() -> str:
    from src.config.help import help_text

    return help_text()


def _run(arguments: list[str]) -> None:
    from src.config.composition import explained
    from src.config.help import experiments_text

    if "experiment=?" in arguments:
        print(experiments_text())
        return
    with explained(arguments):
        if any(a.removeprefix("--").partition("=")[0] == "resume" and a != "resume=null" for a in arguments):
            _resume(arguments)
        else:
            _train_new(arguments)


def main() -> None:
    """Run the command line."""
    run_command_line(_help, _run, needs_arguments=False)


if __name__ == "__main__":
    main()
