"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from src.runs.checkpoint_io import AtomicCheckpointIO
from src.utils.files import atomic_write, write_text


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    write_text(path, "new µ")
    assert path.read_text(encoding="utf-8") == "new µ"


def test_the_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "atomic", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


class Unpicklable:
    def __reduce__(self) -> str:
        raise RuntimeError("disk full")


def test_a_failed_checkpoint_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises(RuntimeError, match="disk full"):
        io.save_checkpoint({"step": 2, "bad": Unpicklable()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint({}, path, storage_options={"a": 1})
