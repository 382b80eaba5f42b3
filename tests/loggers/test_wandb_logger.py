"""W&B's mode, and the identity of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.loggers.wandb_logger import has_api_key, wandb_logger, wandb_mode


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


def test_a_run_is_known_by_name_and_place_and_a_sweep_gives_its_own_id(
    no_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, second = (wandb_logger(f"outputs/{place}/2026-a").version for place in ("x", "x/../x", "y"))
    assert first == again and first != second and first.startswith("2026-a-") and second.startswith("2026-a-")
    monkeypatch.setenv("WANDB_RUN_ID", "sweep7")
    assert wandb_logger("outputs/x/2026-a").version == "sweep7"


def test_a_run_that_goes_on_has_the_id_of_its_wandb_folder(no_account: Path) -> None:
    run_dir = no_account / "2026-a"
    for name in ("offline-run-20260101_120000-cell-7", "run-20260102_120000-cell-7"):
        (run_dir / "wandb" / name).mkdir(parents=True)
    (run_dir / "wandb" / "latest-run").symlink_to(run_dir / "wandb" / "run-20260102_120000-cell-7")
    assert wandb_logger(str(run_dir)).version == "cell-7"
    run_dir.rename(no_account / "moved")
    assert wandb_logger(str(no_account / "moved")).version == "cell-7"
