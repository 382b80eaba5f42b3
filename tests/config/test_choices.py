"""Optimizers, schedules, losses, data and networks by name: what does not fit is refused in the user's terms."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

import eval as evaluation
import train
from src.config.checks import checked
from src.config.choices import kept_learning_rate
from src.config.composition import CONFIG_DIR, SECTION_GROUPS, choices_of, compose_config
from src.config.saved import with_overrides
from src.utils.errors import ConfigError
from tests.fakes import tiny_overrides


def test_every_group_within_a_section_is_known() -> None:
    assert {f"task/{path.name}" for path in (CONFIG_DIR / "task").iterdir() if path.is_dir()} == set(SECTION_GROUPS)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.optimizer=sgd"], "expected task/optimizer=<choice> with a slash, one of .*sgd, got task.optimizer=sgd"),
        (["~callbacks"], "expected ~callbacks.<name> for one less, because others save the run, got ~callbacks"),
        (["task.optimizer=null"], "expected task/optimizer to be one of .*, got none"),
        (["task.scheduler=plateau"], "expected task/scheduler=<choice> with a slash, .*got task.scheduler=plateau"),
        (["experiment=brats", "task.loss=dice"], "expected task/loss=<choice> with a slash, .*got 'task.loss'"),
        (["task.loss=l1"], "expected task/loss=<choice> with a slash, .*got 'task.loss'"),
        (["task/optimizer=sgdd"], "expected task/optimizer to be one of .*got 'sgdd'; did you mean 'sgd'"),
        (["task/loss=dice"], "expected task/loss to be one of huber, l1, .*got monai.losses.DiceLoss"),
        (["experiment=brats", "task/loss=l1"], "expected task/loss to be one of dice, .*got torch.nn.L1Loss"),
        (["experiment=irevnet_lab", "task/loss=l1"], "expected no task/loss for .*Classification"),
        (["task.optimizer.lr=abc"], r"expected task.optimizer.lr to be a number, got 'abc'"),
        (["task.optimizer.lr=0"], r"expected task.optimizer.lr to be a positive number, got 0"),
        (["task.optimizer.lr=null"], r"expected task.optimizer.lr to be a positive number, got None"),
        (["trainer.limit_train_batches=0"], "expected trainer.limit_train_batches above 0, or fit=false"),
        (["trainer.limit_train_batches=0.0"], "expected trainer.limit_train_batches above 0"),
        (
            ["datamodule.num_val=0", "callbacks=early_stopping"],
            "a validation set for callbacks.early_stopping.monitor=val/",
        ),
        (
            ["+trainer.limit_val_batches=0", "task/scheduler=plateau"],
            "for task.scheduler.monitor=val/psnr, got trainer",
        ),
        (["trainer.limit_val_batches=3"], "expected .trainer.limit_val_batches=<value>, with a plus"),
        (["~logger"], r"expected logger=\[\] for none, got ~logger"),
        (["logger=null"], r"expected logger=\[\] for none, got logger=null"),
        (["~model"], "expected a configuration with model"),
        (["ct_postproc"], "expected experiment=ct_postproc, got 'ct_postproc'"),
        (["ct_postprc"], "expected key=value, got 'ct_postprc'; did you mean 'experiment=ct_postproc'"),
        (["glow"], "expected model=glow, got 'glow'"),
        (["task.scheduler={gamma: 0.9}"], "expected keys that task.scheduler has, got others; a plus adds one"),
        (["seed=[1"], r"expected key=value, got 'seed=\[1'"),
        (
            ["model=glow"],
            "expected model=iunet.*unet for experiment=ct_postproc, got model=glow, which fits .*iconvnet_table2",
        ),
        (
            ["datamodule=mnist"],
            "expected datamodule=foam_ct for .*ct_postproc, got datamodule=mnist, .*irevnet_lab",
        ),
        (
            ["experiment=brats", "datamodule=foam_ct"],
            "=brats.brats_demo for .*got datamodule=foam_ct, which fits .*ct_postproc",
        ),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(compose_config(overrides))


def test_a_mistake_beside_a_part_that_fits_keeps_its_own_message() -> None:
    overrides = ["experiment=iconvnet_table2", "datamodule=mnist", "model=glow", "+datamodule.scan=1"]
    with pytest.raises(ConfigError, match=r"expected an argument of .*MNISTDataModule, got datamodule\.scan"):
        checked(compose_config(overrides))


def test_a_run_without_training_may_have_no_batches() -> None:
    checked(compose_config(["trainer.limit_train_batches=0", "fit=false"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor.metric=val/psnrr"], r"expected monitor\.metric to be .*got 'val/psnrr'; did you mean 'val/psnr'"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/dice"],
            r"callbacks\.early_stopping\.monitor",
        ),
        (["callbacks=early_stopping", "callbacks.early_stopping.mode=min"], r"callbacks\.early_stopping\.mode=max"),
        (
            ["task/scheduler=plateau", "task.scheduler.monitor=train/loss"],
            r"task\.scheduler\.monitor to be .*, got 'train/loss'",
        ),
        (["task/scheduler=plateau", "monitor.metric=step"], r"task\.scheduler\.monitor to be .*, got 'step'"),
        (
            ["task/scheduler=plateau", "task.scheduler.factor=2"],
            r"in task\.scheduler .*expected factor in \(0, 1\), got 2",
        ),
        (["task.optimizer.weight_decay=-1"], r"values in task\.optimizer .*Invalid weight_decay value: -1"),
        (
            [
                "task/scheduler=none",
                "task.scheduler._target_=torch.optim.lr_scheduler.ExponentialLR",
                "+task.scheduler.gamma=0.9",
            ],
            "task.scheduler that its class accepts with the optimizer and total_steps, .*total_steps",
        ),
        (["callbacks=swa", "callbacks.swa.start_fraction=1.5"], r"callbacks\.swa\.start_fraction in \[0, 1\), got 1.5"),
        (["callbacks=lr_finder", "callbacks.lr_finder.min_lr=2"], "expected 0 < min_lr < max_lr"),
    ],
)
def test_what_only_the_objects_know_is_refused_before_the_data_are_made(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    arguments = [f"datamodule.data_dir={data}", f"run_dir={tmp_path / 'run'}", "logger=csv", *overrides]
    with pytest.raises((ValueError, InstantiationException), match=message):
        train.train(compose_config(arguments))
    assert not data.exists() and not (tmp_path / "run").exists()


def test_a_saved_run_takes_another_choice() -> None:
    saved = compose_config(["task.optimizer.weight_decay=0.5", "run_dir=x"])
    config = with_overrides(saved, ["task/optimizer=sgd", "task/loss=huber", "task.optimizer.lr=0.25"])  # type: ignore[arg-type]
    own = {"lr": 0.25, "weight_decay": 0.5}
    assert config.task.optimizer == {**compose_config(["task/optimizer=sgd"]).task.optimizer, **own}
    assert config.task.criterion == compose_config(["task/loss=huber"]).task.criterion
    assert config.task.scheduler == saved.task.scheduler


def test_a_file_that_is_no_checkpoint_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["eval.py", "ckpt=README.md"])
    with pytest.raises(SystemExit):
        evaluation.main()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: expected a readable checkpoint, got 'README.md': ") and second.startswith(
        "(debug=true"
    )


def test_the_command_line_of_all_choices_trains(tmp_path: Path) -> None:
    more = ["task/optimizer=sgd", "task/loss=l1", "task/scheduler=plateau", "callbacks=[default,early_stopping]"]
    more += ["task.scheduler.patience=0", "task.scheduler.threshold=10", "task.optimizer.lr=0.5"]
    more += ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1000", "trainer.max_epochs=9"]
    summary = train.train(compose_config(tiny_overrides(tmp_path, *more)))
    # The first validation is the best one; the second counts as no improvement and ends the run.
    assert summary["epochs"] == 2
    assert set(choices_of("task/optimizer")) >= {"adamw", "adam", "sgd", "adamax", "rmsprop"}


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            ["task/optimizer=sgd"],
            "note: task.optimizer.lr=0.016 is the experiment's; task/optimizer=sgd alone has 0.01",
        ),
        (["task/optimizer=sgd", "task.optimizer.lr=0.05"], None),
        (["experiment=irevnet_lab", "task/optimizer=sgd", "task.optimizer.lr=0.01"], None),
        ([], None),
    ],
)
def test_a_learning_rate_meant_for_another_optimizer_is_noted(overrides: list[str], note: str | None) -> None:
    assert kept_learning_rate(overrides, compose_config(overrides)) == note
