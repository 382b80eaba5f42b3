"""What a number was measured with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from src.runs.provenance import git_commit, hardware, versions


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
