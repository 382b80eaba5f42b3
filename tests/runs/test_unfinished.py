"""The run that resume=auto means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from src.config.checks import plain
from src.config.composition import compose_config
from src.runs.config_file import write_config
from src.runs.folder import RunFolder
from src.runs.summary import write_summary
from src.runs.unfinished import newest_unfinished
from src.utils.errors import ConfigError
from src.utils.files import write_text
from src.utils.reading import FileError

RUNS = {
    "iunet": ["experiment=ct_postproc"],
    "unet": ["experiment=ct_postproc", "model=unet", "seed=1"],
    "digits": ["experiment=irevnet_lab", "trainer.max_epochs=7"],
    "finished": ["experiment=ct_postproc", "seed=2"],
    "prolonged": ["experiment=ct_postproc", "seed=3"],
    "given more minutes": ["experiment=ct_postproc", "seed=4", "callbacks=time_budget", "task/scheduler=none"],
    "images": ["experiment=iconvnet_table1"],
    "sheet": ["experiment=irevnet_lab/sheet"],
    "glow": ["experiment=flows/glow", "trainer.max_epochs=7"],
    "of an earlier version": ["experiment=irevnet_lab/sheet", "seed=5"],
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    for age, (name, overrides) in enumerate(RUNS.items()):
        folder = outputs / overrides[0].partition("=")[2].replace("/", "_") / name
        config = compose_config([*overrides, f"run_dir={folder}"])
        if name == "of an earlier version":
            del config.choices
        write_config(config)
        if name == "prolonged":
            config.trainer.max_epochs = 1  # when it finished
        if name == "given more minutes":
            config.callbacks.time_budget.minutes = 1.0
        if name in ("finished", "prolonged", "given more minutes"):
            write_summary({"run_dir": str(folder), "config": plain(config, resolve=True)})
        checkpoint = RunFolder(folder).checkpoint()
        # Older the later they stand in the list; the times of the other files say nothing.
        write_text(checkpoint, "")
        os.utime(checkpoint, (2_000_000_000 - 10 * age,) * 2)
    (outputs / "ct_postproc" / "never_began").mkdir()
    return outputs


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "iunet"),
        (["experiment=ct_postproc"], "iunet"),
        (["experiment=irevnet_lab"], "digits"),
        (["model=unet"], "unet"),
        (["scale=small", "seed=1"], "unet"),
        (["experiment=irevnet_lab", "trainer.max_epochs=7"], "digits"),
        (["seed=3"], "prolonged"),
        (["seed=4"], "given more minutes"),
        (["model=convnet"], "images"),  # older than runs that have nothing to which this network refers
        (["experiment=irevnet_lab/sheet", "model=lab_irevnet"], "sheet"),
        (["experiment=flows/glow"], "glow"),
        (["seed=5", "trainer=cpu"], "of an earlier version"),
        *((overrides, name) for name, overrides in RUNS.items() if name != "finished"),
    ],
)
def test_the_newest_run_with_these_values(outputs: Path, overrides: list[str], name: str) -> None:
    assert newest_unfinished(overrides, outputs).name == name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["seed=2"],
            r"with seed=2 under .*, got 10 runs with a checkpoint, of which 9 are unfinished.*\n  unfinished: ",
        ),
        (["scale=medium"], "expected an unfinished run with scale=medium"),
        (["trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'"),
        (["model=unett"], "expected model to be one of"),
    ],
)
def test_without_one_the_others_are_named(outputs: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        newest_unfinished(overrides, outputs)


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 0 runs with a checkpoint, of which 0 are unfinished"):
        newest_unfinished([], tmp_path)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    """Also beside a summary: whether that run is finished cannot be told."""
    folder = tmp_path / "ct_postproc" / "run"
    config = compose_config(["experiment=ct_postproc", f"run_dir={folder}"])
    run = RunFolder(folder)
    write_config(config)
    write_summary({"run_dir": str(folder), "config": plain(config, resolve=True)})
    write_text(run.checkpoint(), "")
    text = run.config.read_text()
    write_text(run.config, text[: len(text) // 2] + "\n\t: [")
    with pytest.raises(FileError, match=r"expected the configuration of a run, got '.*config\.yaml'"):
        newest_unfinished([], tmp_path)
