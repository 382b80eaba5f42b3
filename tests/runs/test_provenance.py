"""What a number was measured with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from src.runs.provenance import git_commit, hardware, versions

AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@b"]


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    for command in (["init", "-q"], ["add", "."], [*AUTHOR, "commit", "-q", "--allow-empty", "-m", "x"]):
        (tmp_path / "file").write_text("1")
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None and len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_results_and_texts_do_not_change_a_commit(tmp_path: Path) -> None:
    texts = [tmp_path / "README.md", tmp_path / "experiments" / "a" / "results" / "small" / "table.tex"]
    for path in texts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    for arguments in (["init", "-q"], ["add", "-A"], [*AUTHOR, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    commit = git_commit(tmp_path)
    for path in texts:
        path.write_text("after")
    assert commit is not None and git_commit(tmp_path) == commit


def test_new_code_is_an_uncommitted_change_and_other_new_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "old.py").touch()
    for arguments in (["init", "-q"], ["add", "-A"], [*AUTHOR, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    commit = git_commit(tmp_path)
    results = tmp_path / "experiments" / "a" / "results" / "small"
    results.mkdir(parents=True)
    for path in (results / "run.json", tmp_path / "notes.txt", tmp_path / "src" / "notes.md"):
        path.touch()
    assert commit is not None and git_commit(tmp_path) == commit
    (tmp_path / "src" / "mine.py").touch()
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_what_a_number_was_measured_with() -> None:
    assert {"python", "torch", "pytorch-lightning", "hydra-core"} <= versions().keys()
    assert hardware()["cores"] >= 1 and hardware()["cpu"]


def test_gpus_that_a_run_does_not_use_are_not_its_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert [hardware(gpus)["gpus"] for gpus in (None, (), (1, 2))] == [
        ["GPU 0", "GPU 1", "GPU 2"],
        [],
        ["GPU 1", "GPU 2"],
    ]
