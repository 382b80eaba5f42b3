"""Interruptions at the worst moments lose only the work after the last checkpoint."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from src.config.composition import compose_config
from src.runs.finite import NonFiniteStateError
from src.runs.folder import EVALUATIONS, RunFolder
from src.runs.lock import only_process
from src.runs.saved_run import SavedRunOptions, rebuild, saved_run
from src.utils.errors import user_errors
from src.utils.signals import exit_on_signals
from tests.faults import full_disk_for_best
from tests.marks import slow
from tests.resuming import (
    ROOT,
    VARIANTS,
    WholeRuns,
    assert_equal,
    checkpoint,
    overrides,
    plain,
    resume,
    run,
    start,
    stop_at,
    summary,
)

EVERY_STEP = "callbacks.last.every_n_steps=1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> WholeRuns:
    return WholeRuns(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("where", "step", "error"),
    [
        slow("on_validation_batch_end", 3, "OSError"),
        slow("on_validation_batch_end", 6, "KeyboardInterrupt"),
        slow("on_train_batch_start", 4, "OSError"),
        slow("on_after_backward", 2, "KeyboardInterrupt"),
        slow("on_after_backward", 4, "OSError"),
        ("optimizer", 4, "KeyboardInterrupt"),
        slow("optimizer", 5, "OSError"),
        slow("on_train_batch_end", 4, "OSError"),
        slow("on_train_epoch_end", 3, "KeyboardInterrupt"),
        slow("on_train_end", 6, "OSError"),
        slow("on_test_batch_end", 6, "OSError"),
    ],
)
def test_an_interrupted_step_replaces_no_checkpoint(
    where: str, step: int, error: str, whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = f"+callbacks.fault={{_target_:tests.faults.Fault,where:{where},step:{step},error:{error}}}"
    with pytest.raises((SystemExit, OSError)):
        run(tmp_path, EVERY_STEP, fault)
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.fault.step=-1")
    assert_equal(tmp_path, whole["plain"])


@pytest.mark.slow
def test_an_update_that_ruins_the_weights_replaces_no_checkpoint(
    whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the last step of an epoch, no further loss is computed before the checkpoints are due.
    fault = "+callbacks.fault={_target_:tests.faults.InfiniteGradient,step:2}"
    with pytest.raises(NonFiniteStateError, match=r"expected finite values after step 3, got NaN or infinity in net\."):
        run(tmp_path, EVERY_STEP, fault)
    assert checkpoint(tmp_path)["global_step"] == 2
    assert not RunFolder(tmp_path).checkpoint("best").exists()
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.fault.step=-1")
    assert_equal(tmp_path, whole["plain"])


def test_a_full_disk_gives_one_message_and_loses_nothing(
    whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit), user_errors(show_traceback=False):
        patch.setattr("src.runs.checkpoint_io.atomic_write", full_disk_for_best)
        run(tmp_path, EVERY_STEP)
    message = capsys.readouterr().err
    assert f"No space left on device: '{tmp_path}/checkpoints/best.ckpt'\n" in message
    assert f"\ncontinue with: python train.py resume={tmp_path}\n" in message
    assert "Traceback" not in message and message.count("\n") < 5
    resume(monkeypatch, f"resume={tmp_path}")
    assert_equal(tmp_path, whole["plain"])


@pytest.mark.slow
@pytest.mark.parametrize("moved", [True, False])
def test_a_copied_run_folder_keeps_its_best_checkpoint(
    moved: bool, whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole["best first"]
    assert checkpoint(expected, "best")["global_step"] == 3
    with pytest.raises(SystemExit):
        run(tmp_path / "old", *VARIANTS["best first"], stop_at(4, signal.SIGTERM))
    if moved:
        shutil.copytree(tmp_path / "old", tmp_path / "new")
        shutil.rmtree(tmp_path / "old")
        resume(monkeypatch, f"resume={tmp_path / 'new'}", "callbacks.stop.step=-1")
        assert_equal(tmp_path / "new", expected)
    else:
        other = tmp_path / "new"
        resume(monkeypatch, f"resume={tmp_path / 'old'}", f"run_dir={other}", "callbacks.stop.step=-1")
        assert not RunFolder(other).checkpoint("best").exists()
        assert summary(other) == summary(expected)


@pytest.mark.parametrize("signum", [signal.SIGTERM, slow(signal.SIGINT)])
def test_a_run_stopped_in_its_test_has_the_summary_of_the_whole_run(
    signum: int, whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, f"+callbacks.stop={{_target_:tests.faults.SignalInTest,signum:{int(signum)}}}")
    assert stopped.value.code == 128 + signum
    assert f"continue with: python train.py resume={tmp_path}" in capsys.readouterr().err
    assert not RunFolder(tmp_path).summary.exists()
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.signum=0")
    assert_equal(tmp_path, whole["plain"])


def test_a_resumed_finished_run_has_the_same_summary(
    whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole["plain"], tmp_path / "copy")
    resume(monkeypatch, f"resume={tmp_path / 'copy'}")
    assert_equal(tmp_path / "copy", whole["plain"])


@pytest.mark.parametrize("signum", [signal.SIGHUP, slow(signal.SIGUSR1)])
def test_a_hangup_and_slurms_warning_save_and_end(
    signum: int, whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, stop_at(2, signal.Signals(signum)))
    assert stopped.value.code == 128 + signum and checkpoint(tmp_path)["global_step"] == 2
    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    assert_equal(tmp_path, whole["plain"])


def test_a_repeated_signal_does_not_stop_the_save(tmp_path: Path) -> None:
    # This happens if a scheduler signals all processes of a job and the first process signals the others.
    again = "+callbacks.again={_target_:tests.faults.SignalWhileSaving}"
    with pytest.raises(SystemExit) as stopped, exit_on_signals():
        run(tmp_path, stop_at(2, signal.SIGTERM), again)
    assert stopped.value.code == 143 and checkpoint(tmp_path)["global_step"] == 2


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    # As under nohup.
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(tmp_path, stop_at(2, signal.SIGHUP), "trainer.max_epochs=1", "test=false")["steps"] == 3
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.slow
def test_a_closed_terminal_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    arguments = [sys.executable, "train.py", *overrides(tmp_path, "trainer.max_epochs=100000")]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, arguments)
    deadline = time.monotonic() + 200
    while not RunFolder(tmp_path).checkpoint().exists() and time.monotonic() < deadline:
        os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    loops = checkpoint(tmp_path)["loops"]["fit_loop"]
    # Between two steps.
    assert len(set(loops["epoch_loop.batch_progress"]["total"].values())) == 1


@pytest.mark.parametrize("seconds", [0.3, *map(slow, (1.0, 3.0, 5.0, 8.0))])
def test_ctrl_c_during_startup_prints_one_line(seconds: float, tmp_path: Path) -> None:
    process = start(*overrides(tmp_path, "trainer.max_epochs=100000"))
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "Traceback" not in errors and 1 <= errors.count("\n") <= 4, errors


def held(folder: Path) -> subprocess.Popen:
    """Start a process that locks a run folder until it is killed."""
    code = "import sys; from src.runs.lock import only_process\n"
    code += "with only_process(sys.argv[1]): print(flush=True); input()"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, **pipes)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    return process


def test_a_run_folder_has_one_process(
    whole: WholeRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole["plain"], folder)
    rows = RunFolder(folder).metrics.read_text()
    process = held(folder)
    message = rf"expected a run folder that no other process uses, got .*process {process.pid} on "
    try:
        with pytest.raises(SystemExit):
            resume(monkeypatch, f"resume={folder}")
        assert re.search(message, capsys.readouterr().err)
        with pytest.raises(ValueError, match=message):
            train.train(compose_config(overrides(folder)))
    finally:
        process.kill()
        process.wait()
    assert RunFolder(folder).metrics.read_text() == rows
    resume(monkeypatch, f"resume={folder}")
    assert_equal(folder, whole["plain"])


def test_an_error_before_anything_is_written_leaves_no_folder(tmp_path: Path) -> None:
    for name, content, is_left in (("empty", None, False), ("written", "config.yaml", True), ("given", None, True)):
        folder = tmp_path / name
        if name == "given":
            folder.mkdir()
        with pytest.raises(KeyError), only_process(folder):
            if content is not None:
                (folder / content).touch()
            raise KeyError
        assert folder.exists() == is_left, name


def test_partial_files_of_killed_writes_are_removed(tmp_path: Path) -> None:
    code = "import os, sys; from src.utils.files import atomic_write\n"
    code += "with atomic_write(sys.argv[1]): os.kill(os.getpid(), 9)"
    run_folder, evaluation = RunFolder(tmp_path), RunFolder(tmp_path / EVALUATIONS / "one")
    for path in (run_folder.checkpoint(), run_folder.summary, evaluation.summary):
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert len(list(tmp_path.rglob(".*.tmp"))) == 3
    with only_process(tmp_path):
        pass
    # eval.py may be writing there now.
    assert [path.parent for path in tmp_path.rglob(".*.tmp")] == [evaluation.path]


@pytest.mark.slow
def test_weights_in_double_precision_are_tested_as_they_are(whole: WholeRuns, tmp_path: Path) -> None:
    config, path = saved_run(SavedRunOptions(ckpt=str(whole["double precision"])), [f"run_dir={tmp_path}"], "eval")
    again = rebuild(config, path)
    again.trainer.test(again.task, again.datamodule, ckpt_path=str(path), weights_only=True, verbose=False)
    weights = checkpoint(whole["double precision"], "best")["state_dict"]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float64}
    assert plain(dict(again.task.state_dict())) == plain(weights)
