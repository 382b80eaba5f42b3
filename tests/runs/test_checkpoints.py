"""Reading and judging checkpoints."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from src.runs.checkpoint_io import AtomicCheckpointIO
from src.runs.checkpoints import check_architecture, read_checkpoint
from src.runs.formats import FORMAT, FORMAT_KEY
from src.utils.reading import FileError
from src.utils.seal import SEAL_LENGTH
from tests.damage import bit_flips


def trained_checkpoint() -> dict[str, Any]:
    """What a checkpoint has: weights, an optimizer's state, a configuration."""
    torch.manual_seed(0)
    net = nn.Linear(40, 40)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 40)).sum().backward()
    optimizer.step()
    config = {"model": {"_target_": "torch.nn.Linear"}}
    return {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()], "config": config}


def assert_whole(checkpoint: dict[str, Any]) -> None:
    expected = trained_checkpoint()
    assert checkpoint["config"] == expected["config"]
    tensors = [{k: c[k] for k in ("state_dict", "optimizer_states")} for c in (checkpoint, expected)]
    torch.testing.assert_close(*tensors, rtol=0, atol=0)


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


def test_a_checkpoint_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({**trained_checkpoint(), FORMAT_KEY: FORMAT}, path)
    assert_whole(read_checkpoint(path))
    AtomicCheckpointIO().save_checkpoint({**trained_checkpoint(), FORMAT_KEY: FORMAT + 1}, path)
    with pytest.raises(FileError, match=rf"of format {FORMAT} or earlier, got '.*last\.ckpt' of format"):
        read_checkpoint(path)


def lightning_reads(path: Path) -> dict[str, Any]:
    return AtomicCheckpointIO().load_checkpoint(path, weights_only=True)


@pytest.mark.parametrize("read", [read_checkpoint, lightning_reads])
def test_every_flipped_bit_of_a_checkpoint_is_found(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(trained_checkpoint(), path)
    assert_whole(read(path))
    for _ in bit_flips(path, 200):
        with pytest.raises(ValueError, match=r"expected a readable checkpoint, got '.*last\.ckpt'"):
            read(path)
    read(path)


def test_a_checkpoint_that_was_cut_off_is_found(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(trained_checkpoint(), path)
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, *range(len(content) - 110, len(content))):
        path.write_bytes(content[:length])
        try:
            # Without any of the digest it is what an earlier version wrote.
            assert_whole(read_checkpoint(path))
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert length == len(content) - SEAL_LENGTH


def test_an_earlier_versions_checkpoint_has_no_digest_and_is_checked_by_its_crcs(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(trained_checkpoint(), path)
    found = 0
    for _ in bit_flips(path, 200):
        try:
            # What the CRCs leave out, such as padding, changes nothing.
            assert_whole(read_checkpoint(path))
        except ValueError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 150
    assert_whole(read_checkpoint(path))


def test_records_that_unpack_to_more_than_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(200_000)}, "config": {}}, path)
    with zipfile.ZipFile(path) as stored:
        records = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in records.items():
            packed.writestr(name, content)
    with pytest.raises(
        ValueError, match=r"last\.ckpt': expected records of at most \d+ bytes, the file's size, got 80"
    ):
        read_checkpoint(path)


def test_misfitting_weights_are_listed() -> None:
    linear = {"model": {"_target_": "a.Linear"}, "network": {"width": 3, "depth": 1}}
    checkpoint = {"state_dict": nn.Linear(2, 3).state_dict(), "config": linear}
    check_architecture(checkpoint, nn.Linear(2, 3), OmegaConf.create(linear))
    message = r"got one of a\.Linear, with network\.width=3 in place of 4, whose .*1 with another shape"
    with pytest.raises(ValueError, match=message):
        check_architecture(
            checkpoint, nn.Linear(4, 3), OmegaConf.create({**linear, "network": {"width": 4, "depth": 1}})
        )
    deep = OmegaConf.create({"model": {"_target_": "b.Deep"}})
    with pytest.raises(
        ValueError, match=r"b\.Deep, .*4 missing .*\(0\.weight, 0\.bias, 1\.weight, \.\.\.\); 2 unknown"
    ):
        check_architecture(checkpoint, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), deep)
