"""train.py from end to end on volumes of 16^3."""

from __future__ import annotations

import csv
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

import train
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.tasks.finite_loss import NonFiniteLossError
from src.utils.errors import ConfigError
from tests.fakes import tiny_overrides
from tests.marks import slow

ROOT = Path(train.__file__).parent


def run(folder: Path, *more: str) -> dict[str, Any]:
    return train.train(compose_config(tiny_overrides(folder, *more)))


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(RunFolder(folder).checkpoint(name), weights_only=True)["state_dict"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "train.py", *arguments]


def resume(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    train.main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(folder)
    return folder


def test_a_run_leaves_its_files(finished: Path) -> None:
    expected = ["config.yaml", "summary.json", "test_table.csv", "curves.png", "csv/version_0/metrics.csv"]
    expected += [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "images/test-000.png",
        "images/val-000-epoch-0001.png",
    ]
    assert [name for name in expected if not (finished / name).is_file()] == []


def test_summary_holds_what_compare_needs(finished: Path) -> None:
    summary = read_summary(RunFolder(finished).summary)
    assert summary["steps"] == 4 and summary["epochs"] == 2
    assert summary["model"] == "iunet"
    assert summary["config"]["network"]["blowup"] == 4
    net = instantiate(summary["config"]["model"])
    assert summary["num_parameters"] == sum(p.numel() for p in net.parameters())
    assert 0 < summary["invertibility_error"] < 1e-4
    assert summary["step_time_s"] > 0 and summary["peak_memory_bytes"] > 2**20
    assert summary["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_the_validation_in_the_summary_is_that_of_the_tested_network(tmp_path: Path) -> None:
    # The filtered backprojection is equally good after each epoch, so the first one stays the best.
    summary = run(tmp_path, "monitor.metric=val/psnr_fbp", "task.optimizer.lr=0.1")
    with RunFolder(tmp_path).metrics.open() as file:
        first, last = (float(row["val/psnr"]) for row in csv.DictReader(file) if row["val/psnr"])
    assert summary["metrics"]["val/psnr"] == pytest.approx(first, rel=1e-6)
    assert last != pytest.approx(first, rel=1e-3)
    assert "train/loss" in summary["metrics"]


def test_the_table_averages_to_the_summary(finished: Path) -> None:
    with RunFolder(finished).test_table.open() as file:
        rows = list(csv.DictReader(file))
    metrics = read_summary(RunFolder(finished).summary)["metrics"]
    assert [int(row["index"]) for row in rows] == [0, 1, 2]
    for name in ("psnr", "ssim", "psnr_fbp", "ssim_fbp"):
        assert sum(float(row[name]) for row in rows) / 3 == pytest.approx(metrics[f"test/{name}"], rel=1e-6)


def test_checkpoints_hold_tensors_and_plain_containers_only(finished: Path) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(RunFolder(finished).checkpoint(name), weights_only=True)
        assert checkpoint["config"]["datamodule"]["scan"]["size"] == 16


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result_and_another_seed_another(finished: Path, tmp_path: Path) -> None:
    run(tmp_path / "again")
    run(tmp_path / "other", "seed=1")
    first, again, other = weights(finished), weights(tmp_path / "again"), weights(tmp_path / "other")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("model", "backprop"),
    [("iunet", "memcnn"), ("unet", "checkpoint")]
    + [slow("iunet", policy) for policy in ("stored", "checkpoint")]
    + [slow("unet", policy) for policy in ("stored", "memcnn")],
)
def test_each_model_trains_under_each_policy(model: str, backprop: str, tmp_path: Path) -> None:
    if backprop == "memcnn":
        pytest.importorskip("memcnn")
    summary = run(tmp_path, f"model={model}", f"backprop={backprop}", "trainer.max_epochs=1", "test=false")
    assert summary["steps"] == 2
    assert (summary["invertibility_error"] is None) == (model == "unet")


def test_all_loggers_at_once_without_an_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run(tmp_path / "run", "logger=many", "trainer.max_epochs=1")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.*"))
    assert list((tmp_path / "run").glob("csv/version_0/metrics.csv"))


def test_no_logger_is_no_error(tmp_path: Path) -> None:
    overrides = [o for o in tiny_overrides(tmp_path, "trainer.max_epochs=1") if o != "logger=csv"]
    assert "test/psnr" in train.train(compose_config([*overrides, "logger=[]"]))["metrics"]


def stop_at(step: int, signum: signal.Signals) -> str:
    return f"+callbacks.stop={{_target_:tests.fakes.SignalAfter,signum:{int(signum)},step:{step}}}"


def test_ctrl_c_within_an_epoch_keeps_the_finished_step_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, stop_at(3, signal.SIGINT))
    assert stopped.value.code == 130
    assert f"python train.py resume={tmp_path}" in capsys.readouterr().err
    assert torch.load(RunFolder(tmp_path).checkpoint(), weights_only=True)["global_step"] == 3

    resume(monkeypatch, f"resume={tmp_path}", "callbacks.stop.step=-1")
    summary = read_summary(RunFolder(tmp_path).summary)
    assert summary["steps"] == 4 and summary["epochs"] == 2
    assert "test/psnr" in summary["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_a_process_can_be_stopped_from_outside(signum: int, code: int, tmp_path: Path) -> None:
    arguments = command(*tiny_overrides(tmp_path, "trainer.max_epochs=100000"))
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 120
        while not RunFolder(tmp_path).checkpoint().exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"continue with: python train.py resume={tmp_path}" in errors
    assert torch.load(RunFolder(tmp_path).checkpoint(), weights_only=True)["global_step"] > 0


def test_nan_loss_names_step_and_remedies_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    config = compose_config(tiny_overrides(tmp_path))
    config.model = {"_target_": "tests.fakes.ToNaN"}
    with pytest.raises(NonFiniteLossError, match=r"got nan in epoch 0, step 0.*task\.optimizer\.lr"):
        train.train(config)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=unet"], "did you mean 'model'?"),
        (["model=unett"], "got 'unett'; did you mean 'unet'?"),
        (["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'?"),
        (["scale=smal"], "did you mean 'small'?"),
        (["resume=/nowhere"], "expected a checkpoint or a run folder"),
    ],
)
def test_typos_get_a_one_line_answer_at_once(arguments: list[str], message: str) -> None:
    result = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datamodule.scan.size=15", "divisible"),
        ("datamodule.scan.size=8", "at least 11"),
        ("backprop=reversable", "expected task.backprop to be one of"),
        ("+task.lr=3", "expected an argument of src.tasks.reconstruction.Reconstruction, got task.lr"),
        ("+nettwork.x=3", "did you mean 'network'?"),
        ("seed=-1", "expected seed"),
        ("task.data_range=2.0", "expected task.data_range=1.0"),
        ("model.in_channels=2", "in_channels|channels"),
    ],
)
def test_impossible_configurations_fail_before_anything_is_written(override: str, message: str, tmp_path: Path) -> None:
    from src.utils.errors import is_user_error, root_message

    folder = tmp_path / "run"
    with pytest.raises(Exception) as failed:
        run(folder, override)
    assert is_user_error(failed.value)
    assert re.search(message, root_message(failed.value))
    assert not folder.exists()


def test_a_user_error_exits_with_2_and_debug_shows_the_traceback(tmp_path: Path) -> None:
    arguments = command(*tiny_overrides(tmp_path / "run", "seed=-1"))
    short = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert short.returncode == 2 and short.stderr.startswith("error: expected seed") and "Traceback" not in short.stderr
    long = subprocess.run([*arguments, "debug=true"], cwd=ROOT, capture_output=True, text=True)
    assert long.returncode == 1 and "Traceback" in long.stderr


def test_resuming_another_architecture_names_both(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        resume(monkeypatch, f"resume={finished}", "model=unet")
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "expected a checkpoint of src.models.unet.UNet, got one of src.models.lifted.Lifted" in message


def test_a_resumed_run_trains(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    with pytest.raises(SystemExit) as stopped:
        resume(monkeypatch, f"resume={finished}", "fit=false")
    assert stopped.value.code == 2
    assert (
        "expected fit=true to resume a training; to test a checkpoint: python eval.py ckpt=" in capsys.readouterr().err
    )
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_a_setting_that_the_checkpoint_keeps_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(SystemExit) as stopped:
        resume(monkeypatch, f"resume={finished}", "trainer.max_epochs=3", "task.optimizer.lr=1e-6")
    assert stopped.value.code == 2
    assert "expected task.optimizer.lr=0.016 as in the training, because" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_help_needs_no_torch() -> None:
    probe = "import sys, train; sys.argv = ['train.py', '--help']\ntry: train.main()\nexcept SystemExit: pass\n"
    probe += "assert 'iunet' not in sys.modules; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.slow
def test_the_whole_pipeline_on_simulated_scans(tmp_path: Path) -> None:
    arguments = ["datamodule.scan.size=16", "datamodule.num_train=2", "datamodule.num_val=1", "datamodule.num_test=1"]
    arguments += [
        "datamodule.foam.num_balls=5",
        "datamodule.generation_workers=0",
        f"datamodule.data_dir={tmp_path / 'data'}",
    ]
    arguments += [
        "network.blowup=4",
        "network.num_levels=2",
        "trainer.max_epochs=1",
        "logger=csv",
        f"run_dir={tmp_path / 'run'}",
    ]
    result = subprocess.run(command("experiment=ct_postproc", *arguments), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "PSNR (dB)" in result.stdout and f"files: {tmp_path / 'run'}" in result.stdout
    assert read_summary(RunFolder(tmp_path / "run").summary)["metrics"]["test/psnr_fbp"] > 0


def test_a_second_run_in_a_folder_is_refused(finished: Path, capsys: Any) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(ConfigError, match=f"expected a new folder, got run_dir={finished}, which has a run; python"):
        run(finished, "seed=1")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path in before} == before
    assert "continue with" not in capsys.readouterr().err
