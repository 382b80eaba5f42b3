"""Several processes form one run: one folder, one W&B run, and the numbers of one process on the whole batch."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train
from src.config.composition import compose_config
from src.runs.folder import RunFolder, choose_run_dir
from src.runs.summary import read_summary
from src.utils.errors import ConfigError
from tests.fakes import tiny_overrides
from tests.image_files import write_mnist
from tests.marks import slow
from tests.test_image_networks import one_step

ROOT = Path(train.__file__).parent
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
LIGHTNING = [sys.executable, "train.py"]
LAUNCHERS = [pytest.param(LIGHTNING, id="lightning"), slow(TORCHRUN, id="torchrun")]
# Durations, the memory of a process, and the error on one process's part of a batch.
OWN = {"time/step_s", "memory/peak_gib", "val/invertibility_error"}


def start(
    command: list[str], arguments: list[str], cwd: Path = ROOT, timeout: float | None = None, **environment: str
) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK")}
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # including the processes it has started
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(RunFolder(folder).checkpoint(), weights_only=True)["state_dict"]


def history(folder: Path) -> list[dict[str, float]]:
    with RunFolder(folder).metrics.open() as file:
        return [{k: float(v) for k, v in row.items() if v and k not in OWN} for row in csv.DictReader(file)]


def assert_same_numbers(found: Path, expected: Path) -> None:
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], value, rtol=1e-5, atol=1e-6)
    for first, second in zip(history(found), history(expected), strict=True):
        assert first == pytest.approx(second, rel=1e-6, abs=1e-6)
    metrics = [read_summary(RunFolder(folder).summary)["metrics"] for folder in (found, expected)]
    tested = [{k: v for k, v in m.items() if k.startswith("test/")} for m in metrics]
    assert tested[0] == pytest.approx(tested[1], rel=1e-6) and tested[0]
    assert RunFolder(found).test_table.read_text().count("\n") == RunFolder(expected).test_table.read_text().count("\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train.train(compose_config(reconstruction(folder, "datamodule.batch_size=2")))
    return folder


def reconstruction(folder: Path, *more: str) -> list[str]:
    # An epoch of two steps of two volumes, an uneven validation set, double precision.
    options = ["trainer.log_every_n_steps=1", "trainer.precision=64-true"]
    return tiny_overrides(folder, *options, *more)


@pytest.mark.parametrize("command", LAUNCHERS)
def test_two_processes_give_the_numbers_of_one(command: list[str], whole: Path, tmp_path: Path) -> None:
    result = start(command, reconstruction(tmp_path / "run", *TWO, "datamodule.batch_size=1"))
    assert result.returncode == 0, result.stderr
    assert_same_numbers(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        ["callbacks=lr_finder", "callbacks.lr_finder.num_steps=30"],
        ["callbacks=swa", "callbacks.swa.start_fraction=0"],
        ["callbacks=ema", "callbacks.ema.decay=0.5"],
        ["task/scheduler=plateau", "task.scheduler.patience=0"],
        ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9"],
    ],
    ids=lambda choices: choices[0],
)
def test_two_processes_choose_and_average_as_one(choices: list[str], tmp_path: Path) -> None:
    common = ["trainer.max_epochs=3", *choices]
    train.train(compose_config(reconstruction(tmp_path / "one", "datamodule.batch_size=2", *common)))
    result = start(LIGHTNING, reconstruction(tmp_path / "two", *TWO, "datamodule.batch_size=1", *common))
    assert result.returncode == 0, result.stderr
    assert_same_numbers(tmp_path / "two", tmp_path / "one")
    rates = [read_summary(RunFolder(tmp_path / name).summary).get("learning_rate") for name in ("one", "two")]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.slow
def test_two_processes_classify_as_one(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    still = ["datamodule.augment=false", "trainer.precision=64-true", "trainer.log_every_n_steps=1"]

    def arguments(name: str, *last: str) -> list[str]:
        return one_step("irevnet_lab", "lab_irevnet", "mnist", tmp_path, tmp_path / name, *still, *last)

    train.train(compose_config(arguments("whole", "datamodule.batch_size=4")))
    result = start(LIGHTNING, arguments("two", *TWO, "datamodule.batch_size=2"))
    assert result.returncode == 0, result.stderr
    assert_same_numbers(tmp_path / "two", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("command", LAUNCHERS)
def test_one_folder_and_one_wandb_run_also_under_a_sweep_agent(command: list[str], tmp_path: Path) -> None:
    more = [*TWO, "datamodule.batch_size=1", "trainer.max_epochs=1", "logger=[wandb,csv]"]
    arguments = [o for o in tiny_overrides("", *more) if not o.startswith("run_dir=") and o != "logger=csv"]
    # Start it like W&B's agent, and let the run choose its folder.
    agent = {"WANDB_MODE": "offline", "WANDB_RUN_ID": "sweepcell", "WANDB_SWEEP_ID": "table"}
    absolute = [str(ROOT / part) if part == "train.py" else part for part in command]
    result = start(absolute, arguments, cwd=tmp_path, **agent)
    assert result.returncode == 0, result.stderr
    (run_dir,) = (tmp_path / "outputs" / "ct_postproc").iterdir()
    assert RunFolder(run_dir).summary.is_file()
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    assert folder.name.endswith("-sweepcell") and len(list(folder.glob("*.wandb"))) == 1


@pytest.mark.slow
def test_a_signal_to_one_process_ends_both_after_the_same_step_and_the_run_resumes(whole: Path, tmp_path: Path) -> None:
    stop = f"{{_target_:tests.fakes.SignalAfter,signum:{int(signal.SIGTERM)},step:1,rank:1}}"
    arguments = reconstruction(tmp_path / "run", *TWO, "datamodule.batch_size=1", f"+callbacks.stop={stop}")
    result = start(TORCHRUN, arguments)
    assert result.returncode != 0
    assert "interrupted after step 1" in result.stderr
    saved = torch.load(RunFolder(tmp_path / "run").checkpoint(), weights_only=True)
    assert saved["global_step"] == 1 and len(saved["random_state"]) == 2
    result = start(LIGHTNING, [f"resume={tmp_path / 'run'}", "callbacks.stop.step=-1"])
    assert result.returncode == 0, result.stderr
    assert_same_numbers(tmp_path / "run", whole)


def test_several_nodes_need_a_folder_that_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    config = compose_config(["trainer=ddp", "trainer.num_nodes=2"])
    with pytest.raises(ConfigError, match="expected run_dir=<a folder shared by all nodes>"):
        choose_run_dir(config)
    config.trainer.num_nodes = 1
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ConfigError, match="expected run_dir="):
        choose_run_dir(config)
    config.run_dir = "shared"
    assert choose_run_dir(config) == "shared"
