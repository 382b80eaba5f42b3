"""Processes that share a run do not hang, and a run that does hang can be ended."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.utils import instantiate

import eval as evaluation
import predict as prediction
import train
from src.callbacks.hung_run import EndHungRun
from src.config.composition import CONFIG_DIR, compose_config
from src.runs import folder as run_folder
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.utils import processes
from src.utils.reduced import reduced
from tests.collectives import Record, assert_same, record
from tests.fake_segmentation import segmentation_overrides, write_scan
from tests.fakes import tiny_overrides
from tests.marks import slow
from tests.test_ddp import LIGHTNING, ROOT, TORCHRUN, start
from tests.tiny_experiments import SIZES, TWO, tiny, write_images

DISPLAYS = ["lines", "rich"]
FAST = "brats"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_images(folder)
    return folder


@pytest.fixture(params=[DISPLAYS[0], *map(slow, DISPLAYS[1:])])
def display(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.stdout", Terminal() if request.param == "rich" else io.StringIO())
    return request.param


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def records(overrides: list[str]) -> list[Record]:
    return of_both(lambda: train.train(compose_config(overrides)))


def of_both(run: Callable[[], object]) -> list[Record]:
    """Return the record of the first process and then of the second, which finds the files of the first."""
    return [record(rank, run) for rank in range(2)]


def test_every_experiment_is_there() -> None:
    names = {str(path.relative_to(CONFIG_DIR / "experiment").with_suffix("")) for path in experiments()}
    assert set(SIZES) == names


def experiments() -> Iterator[Path]:
    """Return the files that set an experiment, without those of scales."""
    for path in (CONFIG_DIR / "experiment").rglob("*.yaml"):
        if path.stem not in ("small", "medium", "paper"):
            yield path


@pytest.mark.parametrize("experiment", [pytest.param(e, marks=[] if e == FAST else pytest.mark.slow) for e in SIZES])
def test_both_processes_issue_the_same_operations(experiment: str, display: str, data: Path, tmp_path: Path) -> None:
    assert_same(*records(tiny(experiment, data, tmp_path)))
    assert RunFolder(tmp_path).summary.is_file()


@pytest.mark.parametrize("options", [["callbacks=guard"], ["callbacks=ema"], ["logger=many"], ["backprop=memcnn"]])
@pytest.mark.slow
def test_the_same_with_every_option_that_runs_in_a_step(options: list[str], display: str, tmp_path: Path) -> None:
    assert_same(*records(volumes(tmp_path, *options)))


def test_the_same_with_a_number_that_a_user_logs(display: str, tmp_path: Path) -> None:
    logs = "+callbacks.logs={_target_:tests.test_processes.LogsAnEpoch}"
    assert_same(*records(volumes(tmp_path, logs)))


class LogsAnEpoch(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any) -> None:
        pl_module.log("mine", 1.0, on_step=False, on_epoch=True, sync_dist=True, prog_bar=True)


def test_the_records_reveal_a_hang(tmp_path: Path) -> None:
    alone = "+callbacks.alone={_target_:tests.test_processes.ReducesAlone}"
    with pytest.raises(AssertionError, match=r"process 0: .*barrier.* in test_processes\.on_train_end"):
        assert_same(*records(volumes(tmp_path, alone)))


class ReducesAlone(pl.Callback):
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            trainer.strategy.barrier()


def volumes(folder: Path, *more: str) -> list[str]:
    return tiny_overrides(folder, *TWO, "datamodule.batch_size=1", "trainer.max_epochs=1", *more)


@pytest.mark.slow
def test_a_saved_run_is_tested_and_predicts_with_the_same_operations(tmp_path: Path) -> None:
    train.train(compose_config(segmentation_overrides(tmp_path / "run", "trainer.max_epochs=1")))
    for name in ("a", "b", "c"):
        write_scan(tmp_path / "scans", name, 0, (16, 16, 16))
    arguments = [f"ckpt={tmp_path / 'run'}", *TWO]
    assert_same(*of_both(lambda: evaluation.evaluate(*evaluation.load(arguments))))
    arguments += [f"output={tmp_path / 'maps'}", f"datamodule.predict_dir={tmp_path / 'scans'}", "overwrite=true"]
    assert_same(*of_both(lambda: prediction.predict(*prediction.load(arguments))))
    assert len(list((tmp_path / "maps").glob("*.nii.gz"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("display", DISPLAYS)
def test_every_experiment_ends_in_time_with_two_processes(display: str, data: Path, tmp_path: Path) -> None:
    cases = {experiment: tiny(experiment, data, tmp_path / experiment) for experiment in SIZES}
    (tmp_path / "cases.json").write_text(json.dumps(list(cases.values())))
    command = [*TORCHRUN[:-1], "-m", "tests.train_all", str(tmp_path / "cases.json"), display]
    result = start(command, [], timeout=600)
    assert result.returncode == 0, result.stderr
    for experiment in SIZES:
        summary = read_summary(RunFolder(tmp_path / experiment).summary)
        assert any(name.startswith("test/") for name in summary["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("command", [pytest.param(LIGHTNING, id="lightning"), pytest.param(TORCHRUN, id="torchrun")])
def test_a_multirun_trains_one_run_after_the_other(command: list[str], tmp_path: Path) -> None:
    arguments = [o for o in volumes(tmp_path) if not o.startswith("run_dir=")]
    absolute = [str(ROOT / part) if part == "train.py" else part for part in command]
    environment = {"PYTHONPATH": str(ROOT)}
    result = start([*absolute, "--multirun", "seed=0,1"], arguments, cwd=tmp_path, timeout=300, **environment)
    assert result.returncode == 0, result.stderr
    runs = sorted((tmp_path / "outputs" / "ct_postproc").glob("*/summary.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in runs) == [0, 1]


def test_a_run_leaves_no_process_and_no_variable_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE_S", 0.1)
    monkeypatch.setenv("MASTER_PORT", "1234")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child])))
    with pytest.raises(ValueError, match="the first one's error"), processes.own_processes(trainer):
        os.environ.update(LOCAL_RANK="0", MASTER_PORT="4321")
        raise ValueError("the first one's error")
    assert child.returncode == -signal.SIGKILL
    assert "LOCAL_RANK" not in os.environ and os.environ["MASTER_PORT"] == "1234"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_timeout_is_a_line_of_the_configuration(strategy: str) -> None:
    node = compose_config([f"trainer={strategy}", "trainer.strategy.timeout_minutes=2.5"]).trainer.strategy
    assert instantiate(node)._timeout == timedelta(minutes=2.5)
    with pytest.raises(ValueError, match=r"expected a positive trainer\.strategy\.timeout_minutes, got 0"):
        processes.distributed(strategy, timeout_minutes=0)
    # It may be replaced by the name of one of Lightning's strategies.
    assert compose_config([f"trainer={strategy}", "trainer.strategy=ddp_spawn"]).trainer.strategy == "ddp_spawn"


@pytest.mark.slow
def test_a_process_waits_no_longer_than_the_timeout(tmp_path: Path) -> None:
    result = start(LIGHTNING, [*hanging(tmp_path), "trainer.strategy.timeout_minutes=0.1"], timeout=120)
    assert result.returncode == 1 and "Timed out waiting 6000ms" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [pytest.param(LIGHTNING, id="lightning"), pytest.param(TORCHRUN, id="torchrun")])
def test_a_signal_ends_a_hung_run(command: list[str], signum: signal.Signals, tmp_path: Path) -> None:
    arguments = [*command, *hanging(tmp_path), "callbacks.hung_run.patience_s=3"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert "waiting in vain\n" in iter(process.stdout.readline, "")
        process.send_signal(signum)
        started = time.monotonic()
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode != 0 and time.monotonic() - started < 40
    assert "has made no progress since" in errors
    assert command is TORCHRUN or process.returncode == 128 + signum


@pytest.mark.slow
def test_sigterm_ends_a_test_of_several_processes(tmp_path: Path) -> None:
    stop = f"+callbacks.stop={{_target_:tests.fakes.SignalInTest,signum:{int(signal.SIGTERM)},step:3}}"
    # The test must end as fast as a normal run, not after the timeout for hung runs.
    more = ["datamodule.num_test=40", "callbacks.hung_run.patience_s=1000", "trainer.strategy.timeout_minutes=30"]
    result = start(LIGHTNING, volumes(tmp_path, stop, *more), timeout=120)
    assert result.returncode == 128 + signal.SIGTERM
    assert "has made no progress" not in result.stderr and not RunFolder(tmp_path).summary.exists()


def hanging(folder: Path) -> list[str]:
    return volumes(folder, "+callbacks.hang={_target_:tests.fakes.Hang,step:1}")


def test_a_signal_ends_a_process_that_hangs_outside_of_python(capfd: pytest.CaptureFixture) -> None:
    child = os.fork()
    if not child:
        hang_in_gloo()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert "process 0 has made no progress since SIGTERM" in capfd.readouterr().err


def hang_in_gloo() -> None:
    """Wait for a process that never comes, while SIGTERM is on its way."""
    try:
        trainer: Any = SimpleNamespace(world_size=2, global_rank=0, strategy=SimpleNamespace(launcher=None))
        signal.signal(signal.SIGTERM, lambda *unused: None)
        EndHungRun(patience_s=0.3).setup(trainer, pl.LightningModule(), "fit")
        signal.raise_signal(signal.SIGTERM)
        dist.TCPStore("localhost", 0, 2, True, wait_for_workers=False).wait(["never"], timedelta(seconds=30))
    finally:
        os._exit(1)


def test_a_signal_to_a_forked_process_does_not_end_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(EndHungRun, "_end", lambda self, *received: ended.append(received))
    trainer: Any = SimpleNamespace(world_size=2)
    watcher = EndHungRun(patience_s=0.1)
    previous = signal.signal(signal.SIGTERM, lambda *unused: None)
    try:
        watcher.setup(trainer, pl.LightningModule(), "fit")
        if not (child := os.fork()):
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.3)
        assert not ended
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert ended
    finally:
        watcher.teardown(trainer, pl.LightningModule(), "fit")
        signal.signal(signal.SIGTERM, previous)


def test_numbers_are_reduced_over_the_processes() -> None:
    module = pl.LightningModule()
    values = {"a": torch.tensor(1.0, dtype=torch.float64), "b": 3.0}
    assert reduced(module, values, "mean") == values
    other = torch.tensor([2.0, math.nan], dtype=torch.float64)
    module._trainer = SimpleNamespace(strategy=SimpleNamespace(all_gather=lambda mine: torch.stack([mine, other])))  # type: ignore[assignment]
    assert reduced(module, values, "mean")["a"] == 1.5 and reduced(module, values, "max")["a"] == 2.0
    assert all(math.isnan(reduced(module, values, by)["b"]) for by in ("mean", "max"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_ends_both_with_its_message(tmp_path: Path) -> None:
    result = start(LIGHTNING, volumes(tmp_path, "+callbacks.nan={_target_:tests.fakes.NaNBatches,rank:1}"), timeout=120)
    assert result.returncode == 2
    assert result.stderr.count("error: expected a finite training loss, got nan") == 2


def test_torchruns_processes_agree_on_the_folder_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=0.1))
    stores: dict[int, list[Any]] = {0: [], 1: []}

    def agreed(rank: int, name: str) -> str:
        monkeypatch.setattr(dist, "rendezvous", lambda *unused: iter([(store, rank, 2)]))
        monkeypatch.setattr(run_folder, "_stores", stores[rank])
        return run_folder._agreed(name)

    assert [agreed(0, "first"), agreed(1, "ignored")] == ["first"] * 2
    with pytest.raises(RuntimeError):  # it waits and does not take the folder of the previous run
        agreed(1, "ignored")
    stores[1].pop()
    assert [agreed(0, "second"), agreed(1, "ignored")] == ["second"] * 2
