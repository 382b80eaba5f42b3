"""Messages for configurations that do not exist."""

from __future__ import annotations

import sys

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.config.checks import check_config, check_no_flags, checked, model_name
from src.config.composition import CONFIG_DIR, compose_config, config_keys
from src.config.lookups import check_lookups
from src.config.origins import origin
from src.config.saved import with_overrides
from src.config.targets import check_targets
from src.utils.errors import ConfigError, did_you_mean, full_traceback_wanted, user_errors


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("max_epochs", "trainer.max_epochs"),
        ("trainr.devices", "trainer.devices"),
    ],
)
def test_the_nearest_key_is_named(name: str, hint: str) -> None:
    valid = ["trainer.max_epochs", "trainer.devices", "model.norm", "seed"]
    assert did_you_mean(name, valid) == f"; did you mean {hint!r}?"


@pytest.mark.parametrize("word", ["training=ct_postproc/small/unet", "+training=x", "~training"])
def test_what_follows_from_other_choices_is_no_choice(word: str) -> None:
    with pytest.raises(
        ConfigError, match=r"expected no .*training.*: experiment, scale and model choose configs/training"
    ):
        compose_config([word])


def test_every_file_of_training_belongs_to_an_experiment_a_scale_and_a_network() -> None:
    paths = [path.relative_to(CONFIG_DIR) for path in (CONFIG_DIR / "training").rglob("*.yaml")]
    assert paths
    for _, *experiment, scale, name in (path.parts for path in paths):
        arguments = [f"experiment={'/'.join(experiment)}", f"scale={scale}", f"model={name.removesuffix('.yaml')}"]
        check_config(compose_config([*arguments, "run_dir=x"]))


def test_with_nothing_near_all_keys_are_listed() -> None:
    assert did_you_mean("zzzzzz", ["b", "a"]) == "; valid: a, b"
    assert did_you_mean("zzzzzz", [f"key{i}" for i in range(50)]) == ""


def test_keys_include_those_of_interpolations_and_missing_values() -> None:
    config = OmegaConf.create({"a": {"b": "${nowhere}", "c": "???"}, "d": None, "e": [1]})
    assert list(config_keys(config)) == ["a", "a.b", "a.c", "d", "e"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["modle=unet"], "got 'modle'; did you mean 'model'"),
        (["~modle"], "got 'modle'; did you mean 'model'"),
        (["model.bdy.num_couplings=3"], r"did you mean 'model\.body"),
        (["modle=unet", "sede=1"], "did you mean"),
        (["logger=[csv,tensorbord]"], "got 'tensorbord'; did you mean 'tensorboard'"),
        (["scale=huge"], "expected scale to be one of medium, paper, small, got 'huge'$"),
        (["experiment=restoration/small"], "expected experiment=restoration scale=small, got experiment=rest"),
        (["experiment=sheet"], "expected experiment to be one of brats, .* irevnet_lab/sheet, .*, got 'sheet'"),
        (["experiment=flows/glw"], "expected experiment to be one of .*, got 'flows/glw'; did you mean 'flows/glow'"),
        (["model.body.channels=[4,8]"], r"to replace it: '~model\.body\.channels' '\+model\.body\.channels=\[4,8\]'$"),
    ],
)
def test_the_command_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_config(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.depth=mid"], "expected network.depth to be one of shallow, deep, got 'mid'$"),
        (["network.depth=null"], "expected network.depth to be one of shallow, deep, got None$"),
        (
            ["experiment=brats", "network.width=wid"],
            "one of baseline, narrow, medium, wide, got 'wid'; did you mean 'wide'",
        ),
        (
            ["experiment=iconvnet_table1", "network.step=iinn"],
            "expected network.step to be one of base, circular, .*'iinn'",
        ),
    ],
)
def test_a_choice_from_a_table_of_the_configuration(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(compose_config(overrides))


def test_relative_lookups_are_followed_from_their_section() -> None:
    tables = {"tables": {"x": {"a": 1}}, "inner": {"which": "x", "key": "b", "v": "${..tables.${.which}.a}"}}
    check_lookups(OmegaConf.create(tables))
    check_lookups(OmegaConf.create({"v": "${nowhere.${key}}", "key": "b"}))  # OmegaConf's own message names the table
    tables["inner"]["which"] = "y"
    with pytest.raises(ConfigError, match=r"expected inner\.which to be one of x, got 'y'"):
        check_lookups(OmegaConf.create(tables))


def test_the_channels_of_an_iunet_can_be_a_list() -> None:
    config = compose_config(["~model.body.channels", "+model.body.channels=[4,8]"])
    assert checked(config).model.body.channels == [4, 8]
    config.model.body.channels = [4] * 7
    with pytest.raises(ConfigError, match=r"expected at most 6 levels .*, got model\.body\.channels=\[4, 4"):
        checked(config)


@pytest.mark.parametrize("flag", ["--experiment", "--experiment=ct_postproc", "--model", "--trainer.max_epochs=3"])
def test_a_key_is_no_flag(flag: str) -> None:
    key = flag.partition("=")[0]
    with pytest.raises(ConfigError, match=f"expected key=value, such as experiment=ct_postproc, got {key}$"):
        check_no_flags(["seed=1", flag, "ct_postproc"])
    check_no_flags(["--multirun", "--cfg", "job", "--resolve", "--hydra-help", "seed=0,1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainr": {}}, "did you mean 'trainer'"),
        ({"seed": "one"}, "expected seed to be an integer"),
        ({"seed": True}, "expected seed to be an integer"),
        ({"test": "yes"}, "expected test to be true or false"),
        ({"monitor": {"metric": "???", "mode": "max"}, "callbacks": None}, r"expected a value for monitor\.metric"),
    ],
)
def test_the_composed_configuration(change: dict, message: str) -> None:
    config = OmegaConf.create({**compose_config([]), **change})
    with pytest.raises(ConfigError, match=message):
        check_config(config)


def test_an_absent_section_is_named() -> None:
    config = {key: value for key, value in compose_config([]).items() if key != "task"}
    with pytest.raises(ConfigError, match="expected a configuration with task"):
        check_config(OmegaConf.create(config))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "torch.nn.Linear", "in_feature": 1}, r"got a\[0\]\.in_feature; did you mean 'in_features'"),
        ({"_target_": "torch.nn.Linaer"}, r"expected an importable class in a\[0\]\._target_, got 'torch\.nn\.Linaer'"),
        ({"_target_": "torch.nn.functional.__name__"}, "expected a class or function"),
        ({"_target_": "torch.nn.Linear", "in_features": "3"}, r"expected a\[0\]\.in_features to be int, got '3'"),
        (
            {"_target_": "pytorch_lightning.Trainer", "max_epochs": "abc"},
            r"expected a\[0\]\.max_epochs to be int or null, got 'abc'",
        ),
    ],
)
def test_constructor_arguments(node: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_targets(OmegaConf.create({"a": [node]}))


@pytest.mark.parametrize(
    ("overrides", "key", "file"),
    [
        (["experiment=irevnet_lab"], "datamodule.num_train", "experiment/irevnet_lab/small.yaml"),
        (["experiment=irevnet_lab", "scale=medium"], "datamodule.augment", "experiment/irevnet_lab.yaml"),
        (["experiment=irevnet_lab/sheet"], "datamodule.num_train", "experiment/irevnet_lab/small.yaml"),
        (["experiment=flows/realnvp"], "task.optimizer.lr", "training/iconvnet_table2/small/realnvp.yaml"),
    ],
)
def test_the_file_of_an_experiment_that_sets_a_key_is_named(overrides: list[str], key: str, file: str) -> None:
    config = compose_config(overrides)
    assert origin(config, key) == f" (set by configs/{file})"
    assert origin(config, "datamodule.nothing") == origin(config, f"{key}.more") == ""
    assert origin(OmegaConf.create({**config, "choices": {}, "experiment": "../x"}), key) == ""


def test_a_key_that_nobody_typed_is_told_with_its_file() -> None:
    config = compose_config(["experiment=irevnet_lab", "run_dir=x"])
    config.datamodule = {"_target_": "src.datamodules.photographs.PhotographsDataModule", "augment": True}
    message = r"PhotographsDataModule, got datamodule\.augment \(set by configs/experiment/irevnet_lab\.yaml\); valid: "
    with pytest.raises(ConfigError, match=message):
        check_targets(config)


def test_an_interpolated_node_is_checked_where_it_is_used() -> None:
    check_targets(OmegaConf.create({"width": 3, "a": {"_target_": "torch.nn.Linear", "in_features": "${width}"}}))


def test_the_name_of_a_network_is_that_of_its_body() -> None:
    assert [model_name(compose_config([f"model={name}"])) for name in ("iunet", "unet")] == ["iunet", "unet"]


def test_saved_values_reach_what_refers_to_them() -> None:
    saved = OmegaConf.to_container(compose_config(["backprop=stored"]))
    config = with_overrides(saved, ["backprop=checkpoint", "+datamodule.extra={a: 1}", "network.blowup=4"])  # type: ignore[arg-type]
    assert config.task.backprop == "checkpoint" and config.datamodule.extra.a == 1
    assert config.model.body.channels.base_channels == 4


@pytest.mark.parametrize(
    ("environment", "arguments", "wanted"),
    [("", [], False), ("0", ["debug=false"], False), ("1", [], True), ("", ["debug=True"], True)],
)
def test_who_wants_a_traceback(
    environment: str, arguments: list[str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", environment)
    assert full_traceback_wanted(arguments) == wanted


def test_a_constructors_refusal_is_shown_with_its_place_and_a_bug_keeps_its_traceback(
    capsys: pytest.CaptureFixture,
) -> None:
    node = OmegaConf.create(
        {"a": {"_target_": "torch.nn.Conv1d", "in_channels": 3, "out_channels": 2, "kernel_size": 1}}
    )
    node.a.groups = 2
    with pytest.raises(SystemExit) as stopped, user_errors(show_traceback=False):
        instantiate(node)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: in_channels must be divisible by groups\n(while building a)\n")
    with pytest.raises(ValueError), user_errors(show_traceback=True):
        raise ValueError
    with pytest.raises(RuntimeError), user_errors(show_traceback=False):
        raise RuntimeError


def test_the_messages_need_no_torch() -> None:
    import subprocess

    probe = "import sys; import src.config.checks, src.config.saved; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
