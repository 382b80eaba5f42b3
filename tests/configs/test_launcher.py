"""SLURM through Hydra's submitit launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from src.config.composition import CONFIG_DIR
from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.sweeps.identity import identity_of_composed, identity_of_config
from tests.fakes import tiny_overrides

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs hydra-submitit-launcher")
ROOT = CONFIG_DIR.parent


def test_the_launcher_composes_and_takes_our_values() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
        launcher = compose("train", overrides, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.partition == "gpu" and launcher.gpus_per_node == 1 and launcher.timeout_min == 24 * 60
    launcher.submitit_folder, launcher.name = "jobs", "train"
    assert instantiate(launcher).params["array_parallelism"] == launcher.array_parallelism


@pytest.mark.slow
def test_submitit_runs_train_py_and_its_runs_count(tmp_path: Path) -> None:
    """The launcher's local twin: the same pickled job in a process of its own, without a SLURM."""
    overrides = [word for word in tiny_overrides("unused") if not word.startswith("run_dir=")]
    overrides += [f"run_dir={tmp_path}/run-${{seed}}", "seed=0,1", "hydra/launcher=submitit_local"]
    result = subprocess.run(
        [sys.executable, "train.py", "--multirun", *overrides, f"hydra.sweep.dir={tmp_path}/jobs"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for seed in (0, 1):
        summary = read_summary(RunFolder(tmp_path / f"run-{seed}").summary)
        same = [*tiny_overrides("elsewhere"), f"seed={seed}", "logger=wandb"]
        assert identity_of_config({**summary["config"], "run_dir": summary["run_dir"]}) == identity_of_composed(same)
