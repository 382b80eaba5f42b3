"""eval.py on a run of volumes of 16^3."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import eval as evaluation
import train
from src.config.composition import compose_config
from src.runs.folder import RunFolder
from src.runs.saved_run import rebuild
from src.runs.summary import read_summary
from src.utils.errors import ConfigError
from tests.fakes import tiny_overrides


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train.train(compose_config(tiny_overrides(folder)))
    return folder


def test_eval_gives_the_numbers_of_the_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.py", f"ckpt={finished}"])
    evaluation.main()
    (summary_file,) = finished.glob("eval/*-best/summary.json")
    of_eval, of_run = json.loads(summary_file.read_text()), read_summary(RunFolder(finished).summary)
    assert of_eval["metrics"] == {name: value for name, value in of_run["metrics"].items() if name.startswith("test/")}
    # The training's costs are not those of the evaluation; the error is that of the same weights.
    costs = ("step_time_s", "peak_memory_bytes")
    assert [of_eval[key] for key in costs] == [None, None] and all(of_run[key] > 0 for key in costs)
    assert of_eval["invertibility_error"] == of_run["invertibility_error"] is not None
    assert (summary_file.parent / "test_table.csv").read_text() == RunFolder(finished).test_table.read_text()


def test_overrides_reach_groups_and_values(finished: Path, tmp_path: Path) -> None:
    checkpoint = RunFolder(finished).checkpoint()
    # The run's own experiment may be named; `resume=auto` looks for runs by it.
    own = (f"ckpt={checkpoint}", f"run_dir={tmp_path}", "experiment=ct_postproc")
    config, path = evaluation.load([*own, "datamodule.num_test=1", "logger=csv", "trainer=gpu"])
    assert path == checkpoint
    assert config.datamodule.num_test == 1
    assert set(config.logger) == {"csv"} and config.logger.csv.path.startswith(str(tmp_path))
    assert config.trainer.accelerator == "gpu"


def test_no_callback_writes_checkpoints_whatever_its_name(finished: Path) -> None:
    more = "{_target_:pytorch_lightning.callbacks.ModelCheckpoint}"
    on_error = "{_target_:pytorch_lightning.callbacks.OnExceptionCheckpoint,dirpath:x}"
    added = [f"+callbacks.every_epoch={more}", f"+callbacks.on_error={on_error}", "callbacks.curves=null"]
    config, path = evaluation.load([f"ckpt={finished}", *added])
    assert not {"best", "last", "interrupt", "every_epoch", "on_error"} & config.callbacks.keys()
    assert not rebuild(config, path).trainer.checkpoint_callbacks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one ckpt="),
        (["datamodule.num_tests=1"], "did you mean 'datamodule.num_test'"),
        (["modle=unet"], "did you mean 'model'"),
        (["model=unett"], "expected model to be one of"),
        (["scale=medium"], "expected the scale of the saved run"),
        (["~model.body"], "expected key=value"),
        (["seed=1,2"], "expected key=value"),
        (["--verbose"], "expected key=value arguments"),
        (["run_dir={}"], "expected a folder for the results alone, got run_dir=.*finished, whose run"),
    ],
)
def test_wrong_arguments_are_named(finished: Path, arguments: list[str], message: str) -> None:
    source = [f"ckpt={finished}"] if arguments else []
    with pytest.raises(ConfigError, match=message):
        evaluation.load([*source, *(argument.format(finished) for argument in arguments)])


def test_a_checkpoint_of_another_architecture_is_refused(finished: Path, tmp_path: Path) -> None:
    config, path = evaluation.load([f"ckpt={finished}", "model=unet", f"run_dir={tmp_path / 'eval'}"])
    with pytest.raises(ValueError, match=r"expected a checkpoint of src\.models\.unet\.UNet.*missing"):
        evaluation.evaluate(config, path)
    assert not (tmp_path / "eval").exists()


def test_help_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.py", "--help"])
    evaluation.main()
    assert "ckpt=<run folder or checkpoint>" in capsys.readouterr().out
