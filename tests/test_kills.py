"""A run that is stopped at any moment and resumed equals an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from src.runs.folder import RunFolder
from tests.forked import start
from tests.resuming import assert_equal, overrides, readable

VARIANTS = {
    "steps": ["callbacks.last.every_n_steps=1"],
    "validations": ["callbacks.last.every_n_steps=1", "+trainer.val_check_interval=2"],
    "epochs": [],
    "accumulation": ["callbacks.last.every_n_steps=1", "trainer.accumulate_grad_batches=2"],
    "workers": ["callbacks.last.every_n_steps=1", "datamodule.num_workers=1"],
}
# Number of stops for each way to stop a run; 50 take half an hour on two cores.
ROUNDS = int(os.environ.get("KILL_ROUNDS", "10"))


def finish(arguments: list[str], log: Path) -> float:
    """Run to the end and return the duration in seconds."""
    began = time.monotonic()
    process = start(arguments, log)
    process.join(300)
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - began


def kill(process: BaseProcess, clock: random.Random) -> None:
    process.kill()


def ctrl_c_twice(process: BaseProcess, clock: random.Random) -> None:
    for _ in range(2):
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGINT)
        time.sleep(clock.choice([0.0, 0.01, 0.1]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, float]]:
    """The uninterrupted run of each variant and its duration in seconds, made on demand."""

    class Runs(dict):
        def __missing__(self, name: str) -> tuple[Path, float]:
            folder = tmp_path_factory.mktemp("whole")
            for attempt in ("warm-up", "run"):
                seconds = finish(overrides(folder / attempt, *VARIANTS[name]), folder / "log")
            self[name] = folder / "run", seconds
            return self[name]

    return Runs()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("stop", [kill, ctrl_c_twice])
def test_a_run_stopped_at_any_moment_resumes_as_if_it_had_not(
    stop: Callable[[BaseProcess, random.Random], None], seed: int, whole: dict[str, tuple[Path, float]], tmp_path: Path
) -> None:
    name = list(VARIANTS)[seed % len(VARIANTS)]
    expected, seconds = whole[name]
    clock, log = random.Random(f"{stop.__name__} {seed}"), tmp_path / "log"
    arguments = overrides(tmp_path / "run", *VARIANTS[name])
    process = start(arguments, log)
    process.join(clock.uniform(0.0, 1.1 * seconds))
    stop(process, clock)
    process.join(60)
    assert process.exitcode is not None
    # Python cannot raise an interrupt in a weak reference's callback; it prints that, and the run ends after the step.
    assert "Traceback" not in log.read_text() or "Exception ignored in" in log.read_text()
    if (tmp_path / "run").exists():
        readable(tmp_path / "run")
    if RunFolder(tmp_path / "run").checkpoint().exists():
        arguments = [f"resume={tmp_path / 'run'}"]
    finish(arguments, log)
    assert_equal(tmp_path / "run", expected)
