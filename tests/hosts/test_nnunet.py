"""Our network in nnU-Net's own trainer, beside its default network: docs/monai_and_nnunet.md."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="needs nnunetv2: requirements-hosts.txt"),
]


def test_nnunet_trains_our_network_in_less_memory_than_its_own(tmp_path: Path) -> None:
    # nnU-Net reads its folders when it is imported, and starts processes that import the main module again.
    output = tmp_path / "nnunet.json"
    command = [sys.executable, "-m", "benchmarks.nnunet", "--iterations", "2", "--output", str(output), "--no-count"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    default, reversible, stored = json.loads(output.read_text())["epochs"]
    assert default["network"] == "PlainConvUNet"
    assert reversible["network"] == stored["network"] == "NnunetIUNet"
    assert reversible["patch"] == default["patch"]
    assert reversible["losses"] == pytest.approx(stored["losses"], rel=1e-3)
    assert reversible["peak_mib"] < stored["peak_mib"] / 2
    assert reversible["peak_mib"] < default["peak_mib"] / 2
    assert 0 <= reversible["validation_dice"] <= 1
