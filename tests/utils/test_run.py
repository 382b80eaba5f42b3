"""Run folders, provenance, W&B's mode, the table at the end."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from src.config.composition import compose_config
from src.loggers.wandb_logger import has_api_key, wandb_logger, wandb_mode
from src.runs.folder import ENVIRONMENT_VARIABLE, choose_run_dir
from src.runs.provenance import git_commit, hardware, versions
from src.runs.summary import print_table
from src.tasks.base import Report


def test_run_folders_differ_and_other_processes_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    config = compose_config(["model=unet"])
    first, second = choose_run_dir(config), choose_run_dir(config)
    assert first != second
    assert Path(second).parent == Path("outputs/ct_postproc") and "-unet-" in Path(second).name
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(config) == second
    assert not Path("outputs").joinpath(second).exists()


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "--allow-empty", "-m", "x"]):
        (tmp_path / "file").write_text("1")
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None and len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_what_a_number_was_measured_with() -> None:
    assert {"python", "torch", "pytorch-lightning", "hydra-core"} <= versions().keys()
    assert hardware()["cores"] >= 1 and hardware()["cpu"]


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_RUN_ID", "NETRC"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_wandb_is_offline_without_a_key_and_left_alone_with_one(
    no_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wandb_mode() == "offline"
    (no_account / ".netrc").write_text("machine example.org login a password b\n")
    assert not has_api_key()
    (no_account / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    assert has_api_key() and wandb_mode() is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_api_key()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert has_api_key()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"


def test_a_netrc_that_cannot_be_read_is_named(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = no_account / "elsewhere"
    path.write_text("machine\n")
    monkeypatch.setenv("NETRC", str(path))
    with pytest.raises(ValueError, match="expected a readable netrc file"):
        has_api_key()


def test_a_run_keeps_its_name_and_a_sweep_gives_its_own(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_logger("outputs/x/2026-a").version == "2026-a"
    monkeypatch.setenv("WANDB_RUN_ID", "sweep7")
    assert wandb_logger("outputs/x/2026-a").version == "sweep7"


def test_a_run_that_goes_on_has_the_id_of_its_wandb_folder(no_account: Path) -> None:
    run_dir = no_account / "2026-a"
    for name in ("offline-run-20260101_120000-cell-7", "run-20260102_120000-cell-7"):
        (run_dir / "wandb" / name).mkdir(parents=True)
    (run_dir / "wandb" / "latest-run").symlink_to(run_dir / "wandb" / "run-20260102_120000-cell-7")
    assert wandb_logger(str(run_dir)).version == "cell-7"


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "experiment": "ct_postproc",
        "scale": "small",
        "model": "iunet",
        "steps": 10,
        "epochs": 2,
        "num_parameters": 12345,
        "step_time_s": 0.0123,
        "total_time_s": 90.0,
        "peak_memory_bytes": 2**31,
        "peak_memory_kind": "cuda_allocated",
        "invertibility_error": 3.21e-7,
        "run_dir": "outputs/a",
        **changes,
    }


def printed(with_report: bool = True, **changes: Any) -> str:
    text = io.StringIO()
    report = Report(["", "FBP", "network"], [["PSNR (dB)", "14.00", "20.50"]]) if with_report else None
    print_table(summary(**changes), report, Console(file=text, width=100))
    return text.getvalue()


def test_the_tables_show_the_report_and_the_costs() -> None:
    rows = {line.split("│")[1].strip(): line for line in printed().splitlines() if "│" in line}
    assert [cell.strip() for cell in rows["PSNR (dB)"].split("│")[2:4]] == ["14.00", "20.50"]
    assert "ct_postproc (small), iunet: test set" in printed()
    assert "12,345" in rows["parameters"] and "12.3 ms" in rows["time per step"]
    assert "2.00 GiB (cuda, allocated)" in rows["peak memory"] and "3.21e-07" in rows["invertibility error"]
    assert printed().splitlines()[-1] == "files: outputs/a"


def test_the_table_leaves_out_what_was_not_measured() -> None:
    text = printed(with_report=False, step_time_s=None, peak_memory_bytes=None, invertibility_error=None)
    assert all(word not in text for word in ("PSNR", "step", "memory", "invertibility"))
