"""Another choice of a config group in a saved configuration changes what differs from the run's own choice alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from omegaconf import OmegaConf

from src.config.checks import plain
from src.config.composition import compose_config
from src.config.group_choices import changed, experiment_of, known_choices
from src.config.saved import with_overrides
from src.utils.errors import ConfigError

EMA = {"_target_": "src.callbacks.ema.EMA", "decay": 0.999}


@functools.cache
def composed(*overrides: str) -> Any:
    return plain(compose_config([*overrides, "run_dir=x"]), resolve=False)


def saved(*overrides: str, tells_choices: bool = True) -> dict[str, Any]:
    return {key: value for key, value in composed(*overrides).items() if tells_choices or key != "choices"}


@pytest.mark.parametrize("tells_choices", [True, False])
@pytest.mark.parametrize(
    ("run", "choice", "different"),
    [
        (
            ["trainer.max_epochs=100", "+trainer.max_steps=7", "trainer.accumulate_grad_batches=4"],
            "trainer=gpu",
            {"trainer.accelerator": "gpu"},
        ),
        (["experiment=flows/glow", "scale=paper", "trainer=gpu"], "trainer=cpu", {"trainer.accelerator": "cpu"}),
        (["experiment=irevnet_lab/sheet"], "datamodule=mnist", {}),
        (["model=unet"], "task/optimizer=adamw", {}),
        (
            ["model=unet", "+task.optimizer.amsgrad=true"],
            "task/optimizer=adam",
            {"task.optimizer._target_": "torch.optim.Adam", "task.optimizer.amsgrad": None},
        ),
        (["callbacks.last.every_n_steps=5"], "callbacks=ema", {"callbacks.ema": EMA}),
        (["logger=[wandb,csv]", "logger.wandb.project=mine"], "logger=wandb", {"logger.csv": None}),
    ],
)
def test_only_what_differs_changes(run: list[str], choice: str, different: dict[str, Any], tells_choices: bool) -> None:
    before = saved(*run, tells_choices=tells_choices)
    config = with_overrides(before, [choice])
    expected = OmegaConf.create(before)
    for key, value in different.items():
        place, _, name = key.rpartition(".")
        if value is None:
            del OmegaConf.select(expected, place)[name]
        else:
            OmegaConf.update(expected, key, value, force_add=True)
    for key in before.keys() - {"choices"}:
        assert config[key] == expected[key], key
    # The next change begins with this choice.
    if tells_choices:
        group, _, name = choice.partition("=")
        assert dict(config.choices) == {**before["choices"], group: name}


def test_lists_and_defaults_are_told_or_guessed() -> None:
    run = saved("callbacks=[default,early_stopping]", "~callbacks.curves")
    assert run["choices"]["callbacks"] == "[default,early_stopping]" and "logger" not in run["choices"]
    config = with_overrides(run, ["callbacks=ema", "logger=csv"])
    assert config.callbacks == {**{k: v for k, v in run["callbacks"].items() if k != "early_stopping"}, "ema": EMA}
    assert set(config.logger) == {"csv"}
    # eval.py takes the loggers away, and the same choice brings them back.
    assert set(with_overrides({**saved("logger=csv"), "logger": None}, ["logger=csv"]).logger) == {"csv"}


def test_another_class_keeps_no_arguments_that_it_does_not_have() -> None:
    own = {"_target_": "A", "x": 5, "y": 2, "mine": 3, "inner": {"z": 7, "mine": 4}}
    before = {"_target_": "A", "x": 1, "y": 2, "gone": 0, "inner": {"z": 0, "w": 0}}
    after = {"_target_": "A", "x": 1, "y": 6, "new": 8, "inner": {"z": 0, "w": 1}}
    inner = {"z": 7, "mine": 4, "w": 1}
    assert changed(own, before, after) == {"_target_": "A", "x": 5, "y": 6, "mine": 3, "new": 8, "inner": inner}
    other = {**after, "_target_": "B"}
    assert changed(own, before, other) == {"_target_": "B", "x": 5, "y": 6, "new": 8, "inner": inner}
    assert changed({"x": 1}, {"x": 1, "part": {"z": 0}}, {"x": 1, "part": {"z": 1}}) == {"x": 1}


@pytest.mark.parametrize("tells_choices", [True, False])
def test_a_variant_is_an_experiment_of_its_own(tells_choices: bool) -> None:
    for experiment in ("irevnet_lab/sheet", "irevnet_lab", "flows/glow", "iconvnet_table2", "iunet_table2/unet"):
        run = saved(f"experiment={experiment}", "trainer.max_epochs=3", tells_choices=tells_choices)
        assert experiment_of(OmegaConf.create(run)) == experiment
    sheet = saved("experiment=irevnet_lab/sheet", tells_choices=tells_choices)
    assert with_overrides(sheet, ["experiment=irevnet_lab/sheet", "scale=small"]) == sheet
    with pytest.raises(
        ConfigError, match=r"the experiment of the saved run \(irevnet_lab/sheet\), got 'experiment=irev"
    ):
        with_overrides(sheet, ["experiment=irevnet_lab"])


def test_a_choice_outside_of_configs_counts_as_unknown() -> None:
    strange = {"trainer": "../../evil", "model": "gone", "logger": "[csv,../evil]", "hydra/launcher": "x", "task": None}
    config = OmegaConf.create({**saved(), "choices": {**strange, "callbacks": "[default,ema]", "scale": "small"}})
    assert known_choices(config) == {"callbacks": "[default,ema]", "scale": "small"}
