"""Reading and judging checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from src.utils.checkpoints import check_architecture, find_checkpoint, read_checkpoint, run_folder_of


def test_a_run_folder_means_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    assert find_checkpoint(tmp_path / "run") == path == find_checkpoint(path)
    assert run_folder_of(path) == tmp_path / "run"
    with pytest.raises(ValueError, match=r"checkpoints/best\.ckpt, got '.*run'"):
        find_checkpoint(tmp_path / "run", "best")


def test_a_truncated_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1000)}, "config": {}}, path)
    assert read_checkpoint(path)["config"] == {}
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"expected a readable checkpoint, got '.*last\.ckpt'"):
        read_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(ValueError, match="with 'state_dict' and 'config'"):
        read_checkpoint(path)
    torch.save({"state_dict": {}, "config": nn.Linear(1, 1)}, path)
    with pytest.raises(ValueError, match="expected a readable checkpoint"):
        read_checkpoint(path)


def test_misfitting_weights_are_listed() -> None:
    checkpoint = {"state_dict": nn.Linear(2, 3).state_dict(), "config": {"model": {"_target_": "a.Linear"}}}
    check_architecture(checkpoint, nn.Linear(2, 3), "a.Linear")
    with pytest.raises(ValueError, match=r"of a\.Linear, got one of a\.Linear.*1 of another shape \(weight: expected "):
        check_architecture(checkpoint, nn.Linear(4, 3), "a.Linear")
    with pytest.raises(
        ValueError, match=r"b\.Deep, .*4 missing .*\(0\.weight, 0\.bias, 1\.weight, \.\.\.\); 2 unknown"
    ):
        check_architecture(checkpoint, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), "b.Deep")
