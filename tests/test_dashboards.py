"""What a run writes for W&B and TensorBoard, read back with their own readers."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from tests.fakes import tiny_overrides

# Two whole runs.
pytestmark = pytest.mark.slow

ROOT = Path(train.__file__).parent
WANDB = Path(sys.executable).parent / "wandb"
MODELS = ("iunet", "unet")
FINAL = ("num_parameters", "peak_memory_bytes", "step_time_s", "total_time_s", "steps", "test/psnr", "test/ssim")


def start(folder: Path, *more: str, **environment: str) -> subprocess.Popen:
    new = tiny_overrides(folder, "trainer.log_every_n_steps=1")
    arguments = [f"resume={folder}", *more[1:]] if more[0] == "resume" else [*new, *more]
    command = [sys.executable, "train.py", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**inherited, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def inspect(path: Path, *options: str) -> list[Any]:
    """Return what W&B's own reader finds in the file of an offline run."""
    command = [str(WANDB), "leet", "inspect", "--json", *options, str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(text)] if options else [json.loads(line) for line in text.splitlines()]


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def wandb_history(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the values of each step from all files of a run; steps must increase within a file."""
    steps: dict[int, dict[str, Any]] = {}
    for path in offline_runs(folder):
        records = [record["history"] for record in inspect(path) if record["type"] == "history"]
        numbers = [record["step"]["num"] for record in records]
        assert numbers == sorted(set(numbers))
        for number, record in zip(numbers, records, strict=True):
            steps.setdefault(number, {}).update(record["item"])
    return steps


def csv_history(folder: Path) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    with RunFolder(folder).metrics.open() as file:
        for row in csv.DictReader(file):
            values = {name: float(cell) for name, cell in row.items() if cell and name != "step"}
            steps.setdefault(int(row["step"]), {}).update(values)
    return steps


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two parallel runs, which are cells of one table."""
    folders = {model: tmp_path_factory.mktemp("pair") / model for model in MODELS}
    more = ["logger=many", "callbacks.images.every_n_epochs=1"]
    processes = [start(folders[m], *more, f"model={m}", WANDB_RUN_GROUP="iunet_table1") for m in MODELS]
    for process in processes:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output
    return folders


@pytest.mark.parametrize("model", MODELS)
def test_wandb_has_the_whole_history_of_each_of_two_parallel_runs(pair: dict[str, Path], model: str) -> None:
    found, expected = wandb_history(pair[model]), csv_history(pair[model])
    assert set(expected) == {0, 1, 2, 3, 4} and set(found) == set(expected)
    for step, values in expected.items():
        logged = {name: found[step][name] for name in values}
        assert logged == pytest.approx(values, rel=1e-12), step
    assert all(row["trainer/global_step"] == step for step, row in found.items())


@pytest.mark.parametrize("model", MODELS)
def test_wandb_has_config_summary_tags_and_group(pair: dict[str, Path], model: str) -> None:
    (path,) = offline_runs(pair[model])
    (found,) = inspect(path, "--summary")
    summary = read_summary(RunFolder(pair[model]).summary)
    assert found["run_id"].startswith(f"{model}-") and found["state"] == "finished"
    assert {name: found["config"][name] for name in summary["config"]} == summary["config"]
    assert found["tags"] == ["ct_postproc", "small", model, "reversible"]
    values = {**summary, **summary["metrics"]}
    assert {name: found["summary"][name] for name in FINAL} == {name: values[name] for name in FINAL}
    runs = [record["run"] for record in inspect(path) if record["type"] == "run"]
    assert all(run["run_group"] == "iunet_table1" and run["job_type"] == "train" for run in runs)


@pytest.mark.parametrize("model", MODELS)
def test_wandb_has_pictures_and_the_table_of_volumes(pair: dict[str, Path], model: str) -> None:
    history = wandb_history(pair[model])
    pictures = [step for step, row in history.items() if "images/val-000.filenames" in row]
    assert pictures == [1, 3], "one for each epoch, at its last step"
    (path,) = offline_runs(pair[model])
    files = [name for row in history.values() for key in row if key.endswith(".filenames") for name in row[key]]
    tables = [row["test/samples.path"] for row in history.values() if "test/samples.path" in row]
    assert len(files) == 3 and len(tables) == 1
    assert all((path / "files" / name).stat().st_size > 0 for name in [*files, *tables])
    table = json.loads((path / "files" / tables[0]).read_text())
    with RunFolder(pair[model]).test_table.open() as file:
        rows = list(csv.reader(file))
    assert table["columns"] == rows[0]
    assert table["data"] == [pytest.approx([float(cell) for cell in row]) for row in rows[1:]]


@pytest.mark.parametrize("model", MODELS)
def test_tensorboard_has_curves_pictures_and_the_final_numbers_beside_the_configuration(
    pair: dict[str, Path], model: str
) -> None:
    events = EventAccumulator(str(pair[model] / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    expected = csv_history(pair[model])
    for name in ("train/loss", "val/psnr", "test/psnr"):
        curve = {event.step: event.value for event in events.Scalars(name)}
        assert curve == pytest.approx({step: row[name] for step, row in expected.items() if name in row}, rel=1e-6)
    assert {"images/val-000", "images/test-000"} <= set(events.Tags()["images"])
    summary = read_summary(RunFolder(pair[model]).summary)
    (final,) = events.Scalars("final/test/psnr")
    assert final.value == pytest.approx(summary["metrics"]["test/psnr"], rel=1e-6)
    hparams = [tag for tag in events.summary_metadata if tag.startswith("_hparams_")]
    assert "_hparams_/session_start_info" in hparams


def test_a_resumed_run_is_one_run_with_one_history(pair: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "iunet"
    stop = f"+callbacks.stop={{_target_:tests.fakes.SignalAfter,signum:{int(signal.SIGTERM)},step:3}}"
    more = ["logger=many", "callbacks.images.every_n_epochs=1"]
    # Start it like W&B's agent; resuming it does not require the id.
    first = start(folder, *more, stop, WANDB_RUN_ID="cell7")
    assert first.communicate(timeout=500) and first.returncode == 143
    second = start(folder, "resume", "callbacks.stop.step=-1")
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    runs = offline_runs(folder)
    assert len(runs) == 2
    assert {inspect(path, "--summary")[0]["run_id"] for path in runs} == {"cell7"}
    steps = [[r["history"]["step"]["num"] for r in inspect(path) if r["type"] == "history"] for path in runs]
    assert max(steps[0]) < min(steps[1])
    found, expected = wandb_history(folder), wandb_history(pair["iunet"])
    assert set(found) == set(expected)
    for step, row in expected.items():
        assert set(row) == set(found[step])
        for name in ("train/loss", "val/psnr", "val/ssim", "test/psnr"):
            assert row.get(name) == found[step].get(name)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux to have a terminal")
def test_the_local_viewer_opens_an_offline_run(pair: dict[str, Path]) -> None:
    (path,) = offline_runs(pair["iunet"])
    session = f"leet-{os.getpid()}"
    subprocess.run(
        ["tmux", "new-session", "-d", "-s", session, "-x", "160", "-y", "48", str(WANDB), "leet", str(path)], check=True
    )
    try:
        deadline, screen = time.monotonic() + 60, ""
        while "train/loss" not in screen and time.monotonic() < deadline:
            time.sleep(0.5)
            command = ["tmux", "capture-pane", "-p", "-t", session]
            screen = subprocess.run(command, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["tmux", "kill-session", "-t", session], check=False)
    assert "train/loss" in screen
