"""How soon the command line answers, in processor time, because wall time on a busy machine means nothing."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import train
from src.config.composition import CONFIG_DIR
from src.config.help import SCALES, experiments_text, help_text
from tests.fakes import tiny_overrides
from tests.marks import slow

ROOT = Path(train.__file__).parent


def processor_seconds(command: list[str]) -> tuple[subprocess.CompletedProcess, float]:
    """Run a command and return its output and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(*arguments: str) -> tuple[subprocess.CompletedProcess, float]:
    return processor_seconds([sys.executable, "train.py", *arguments])


@pytest.mark.parametrize("arguments", [["--help"], slow(["-h"]), ["experiment=?"], slow(["--cfg", "job"])])
def test_help_and_composition_take_less_than_two_seconds(arguments: list[str]) -> None:
    result, seconds = run(*arguments)
    assert result.returncode == 0 and "ct_postproc" in result.stdout
    assert seconds < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'"),
        slow(["trainer.max_epochs=three"], "expected trainer.max_epochs to be int or null, got 'three'"),
        (["network.num_levels=9"], "expected at most 6 levels"),
        (["--experiment", "ct_postproc"], "expected key=value, such as experiment=ct_postproc, got --experiment"),
        slow(["model.body.padding_mode=reflect", "network.num_levels=9"], "expected at most 6 levels"),
        slow(["trainer.max_epochs=-3"], "expected trainer.max_epochs to be at least 0"),
        slow(["trainer.accelerator=gpuu"], "did you mean 'gpu'"),
        slow(["task.optimizer=sgd"], "expected task/optimizer=<choice> with a slash"),
        slow(["task.optimizer.lr=abc"], "expected task.optimizer.lr to be a number, got 'abc'"),
        (["model=glow"], "for experiment=ct_postproc, got model=glow, which fits experiment=iconvnet"),
        slow(["backprop=revesible"], "did you mean 'reversible'"),
        slow(["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=9"], "datamodule.num_val to be at least 9"),
    ],
)
def test_impossible_configurations_are_refused_within_three_seconds(arguments: list[str], message: str) -> None:
    result, seconds = run(*arguments)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert seconds < 3


@pytest.mark.slow
def test_training_starts_within_ten_seconds(tmp_path: Path) -> None:
    # The cost of the unavoidable imports on this machine at its present load.
    code = "import pytorch_lightning, torch._dynamo, matplotlib.figure, wandb.sdk.launch"
    imports = processor_seconds([sys.executable, "-c", code])[1]
    stop = "+callbacks.stop={_target_:tests.fakes.SignalAfter,signum:15,step:1}"
    result, seconds = run(*tiny_overrides(tmp_path, stop, "logger=[wandb,csv]"))
    assert result.returncode == 143, result.stderr
    assert seconds < max(10, imports + 4)


def test_every_experiment_says_what_it_is_and_what_it_costs() -> None:
    text = experiments_text()
    for path in CONFIG_DIR.glob("experiment/*.yaml"):
        (block,) = re.findall(rf"^  {path.stem} .+\n((?:      .+\n)+)", text, flags=re.MULTILINE)
        assert [line.split()[0] for line in block.splitlines()] == list(SCALES), path.stem


def test_experiments_in_folders_are_listed_below_those_that_they_change() -> None:
    blocks = re.split(r"^  (?=\w)", experiments_text(), flags=re.MULTILINE)
    listed = {
        name: block.split()[0] for block in blocks for name in re.findall(r"^    (\w+/\w+) +\S", block, re.MULTILINE)
    }
    folders = {path.parent.name: path for path in CONFIG_DIR.glob("experiment/*/*.yaml") if path.stem not in SCALES}
    assert {name.split("/")[0] for name in listed} == set(folders)
    assert listed["flows/glow"] == "iconvnet_table2" and listed["iunet_table2/unet"] == "brats"
    assert listed["irevnet_lab/sheet"] == "irevnet_lab"


def test_every_choice_is_explained() -> None:
    text = help_text()
    for group in ("model", "datamodule", "task", "trainer", "logger", "callbacks"):
        for path in CONFIG_DIR.glob(f"{group}/*.yaml"):
            if path.stem != "base":
                assert re.search(rf"^  {path.stem} +\S+", text, flags=re.MULTILINE), path
