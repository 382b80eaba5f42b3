"""Cells as processes: skipped, gone on with, failing, killed, never twice at a time."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.sweeps.cell import Cell
from src.sweeps.process import cell_environment, last_lines, start
from src.sweeps.runner import Attempt, Runner, State
from src.utils.files import write_text
from tests.sweeps.programs import cells_of, starts, sweep_of, write_program

ROOT = Path(__file__).parents[2]
# A program of its own that runs the cells of a sweep, for tests that kill it.
DRIVER = """
import sys
from pathlib import Path
from src.sweeps.process import cell_environment
from src.sweeps.runner import Runner
from src.utils.files import write_text
from tests.sweeps.programs import cells_of, sweep_of
program, parent = sys.argv[1], Path(sys.argv[2])
cells = cells_of(sweep_of(program, x=[1, 2, 3], steps=[int(sys.argv[3])]), parent)
print([attempt.state.name for attempt in Runner(iter(cells), 2, cell_environment(2), poll_s=0.02).run()])
"""


def run(cells: list[Cell], jobs: int = 2, **settings: object) -> list[Attempt]:
    return Runner(iter(cells), jobs, cell_environment(jobs), poll_s=0.02, **settings).run()  # type: ignore[arg-type]


def states(attempts: list[Attempt]) -> list[State]:
    return [attempt.state for attempt in attempts]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def driver(program: str, parent: Path, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, program, str(parent), str(steps)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_cells_run_once_and_are_skipped_afterwards(tmp_path: Path) -> None:
    cells = cells_of(sweep_of(write_program(tmp_path), x=[1, 2, 3]), tmp_path / "runs")
    seen: list[tuple[str, State]] = []
    attempts = run(cells, on_change=lambda attempt: seen.append((attempt.cell.name, attempt.state)))
    assert states(attempts) == [State.FINISHED] * 3
    assert [state for name, state in seen if name == "x-1"] == [State.RUNNING, State.FINISHED]
    assert cells[1].summary()["metrics"]["loss"] == pytest.approx(1.7**2)
    assert states(run(cells)) == [State.SKIPPED] * 3
    assert len(starts(tmp_path / "runs")) == 3


def test_a_log_starts_with_the_command(tmp_path: Path) -> None:
    (cell,) = cells_of(sweep_of(write_program(tmp_path), steps=[2]), tmp_path / "runs", "more=1")
    run([cell])
    assert cell.log.read_text().splitlines()[0].endswith(f"trainer.py steps=2 more=1 run_dir={cell.folder}")
    assert last_lines(cell.log, 2) == ["step 1", "step 2"]
    assert last_lines(tmp_path / "none", 2) == []


def test_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    environment = cell_environment(3)
    assert environment["OMP_NUM_THREADS"] == "2" and "WANDB_RUN_ID" not in environment
    assert cell_environment(100)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cell_environment(3)["OMP_NUM_THREADS"] == "5"


def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    cells = cells_of(sweep_of(write_program(tmp_path), fail=[1, 0]), tmp_path / "runs")
    attempts = run(cells, jobs=1)
    assert states(attempts) == [State.FAILED, State.FINISHED] and attempts[0].exit_code == 1
    assert last_lines(cells[0].log, 2) == ["about to fail", "expected a better value, got fail=1"]
    # It is tried again.
    assert states(run(cells, jobs=1)) == [State.FAILED, State.SKIPPED]


def test_a_program_that_says_success_without_a_summary_has_failed(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("")
    (attempt,) = run(cells_of(sweep_of(str(tmp_path / "nothing.py"), x=[1]), tmp_path / "runs"))
    assert attempt.state is State.FAILED and attempt.exit_code == 0


def test_fail_fast_stops_the_others_with_a_checkpoint(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    slow = cells_of(sweep_of(program, steps=[1000]), tmp_path / "runs")
    bad = cells_of(sweep_of(program, fail=[1]), tmp_path / "runs")
    never = cells_of(sweep_of(program, x=[1]), tmp_path / "runs")

    def after_a_checkpoint() -> list[Cell]:
        yield slow[0]
        wait_until(slow[0].can_be_resumed)
        yield bad[0]
        yield never[0]

    runner = Runner(after_a_checkpoint(), 2, cell_environment(2), fail_fast=True, poll_s=0.02)  # type: ignore[arg-type]
    assert states(runner.run()) == [State.STOPPED, State.FAILED]
    assert slow[0].can_be_resumed() and not slow[0].is_finished()


def test_an_interrupted_cell_goes_on_and_one_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    stopped, fresh = cells_of(sweep_of(write_program(tmp_path), steps=[3, 4]), tmp_path / "runs", "logger=x", "y=1")
    for cell in (stopped, fresh):
        cell.folder.mkdir(parents=True)
        (cell.folder / "rest").touch()
    write_text(stopped.run.checkpoint(), '{"done": 2, "steps": 3}')
    attempts = run([stopped, fresh])
    assert states(attempts) == [State.FINISHED] * 2
    assert [attempt.resumed for attempt in attempts] == [True, False]
    assert dict(starts(tmp_path / "runs")) == {stopped.folder.name: "resumed", fresh.folder.name: "new"}
    # What the run knows itself is not said again, how it is run is.
    command = stopped.log.read_text().splitlines()[0]
    assert command.endswith(f"resume={stopped.folder} logger=x")
    assert last_lines(stopped.log, 5)[1:] == ["step 3"]
    assert (stopped.folder / "rest").exists() and not (fresh.folder / "rest").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to stop the children of a killed process")
def test_kill_9_of_the_parent_stops_the_cells_and_the_next_one_goes_on(tmp_path: Path) -> None:
    program, parent = write_program(tmp_path), tmp_path / "runs"
    first = driver(program, parent, 40)
    wait_until(lambda: len(list(parent.glob("*/checkpoints/last.ckpt"))) == 2)
    first.kill()
    first.communicate()
    # At once, while the children may still be saving.
    second = driver(program, parent, 40)
    output, errors = second.communicate(timeout=120)
    assert output.strip() == "['FINISHED', 'FINISHED', 'FINISHED']", errors
    kinds = [kind for _, kind in starts(parent)]
    assert sorted(kinds) == ["new"] * 3 + ["resumed"] * 2
    for log in parent.glob("*.log"):
        steps = [line for line in log.read_text().splitlines() if line.startswith("step")]
        assert steps == [f"step {i}" for i in range(1, 41)]  # none twice, none left out


@pytest.mark.slow
def test_two_programs_share_a_sweep_and_no_cell_runs_twice(tmp_path: Path) -> None:
    program, parent = write_program(tmp_path), tmp_path / "runs"
    both = [driver(program, parent, 20) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert len(starts(parent)) == 3 and len({name for name, _ in starts(parent)}) == 3
    assert all(set(ast.literal_eval(output)) <= {"FINISHED", "SKIPPED"} for output in outputs)
    assert sum(output.count("FINISHED") for output in outputs) == 3


def test_a_running_cell_is_locked_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    (cell,) = cells_of(sweep_of(write_program(tmp_path), steps=[1000]), tmp_path / "runs")
    process = start(cell, cell_environment(1))
    assert process is not None and start(cell, cell_environment(1)) is None
    wait_until(cell.can_be_resumed)
    process.stop(signal.SIGKILL)
    assert process.wait(10) and process.exit_code() == -signal.SIGKILL
    again = start(cell, cell_environment(1))
    assert again is not None and again.resumed
    wait_until(lambda: len(starts(tmp_path / "runs")) == 2)
    again.stop()
    assert again.wait(10) and again.exit_code() == 143


def test_ctrl_c_saves_and_says_so(tmp_path: Path) -> None:
    cells = cells_of(sweep_of(write_program(tmp_path), steps=[1000, 1001]), tmp_path / "runs")

    def interrupt(attempts: list[Attempt]) -> None:
        if all(attempt.cell.can_be_resumed() for attempt in attempts) and len(attempts) == 2:
            raise KeyboardInterrupt

    runner = Runner(iter(cells), 2, cell_environment(2), on_tick=interrupt, poll_s=0.02)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert states(runner.attempts) == [State.STOPPED] * 2
    assert [attempt.exit_code for attempt in runner.attempts] == [143, 143]
