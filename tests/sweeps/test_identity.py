"""Which runs are the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from src.config.checks import plain
from src.config.composition import compose_config
from src.sweeps.cell import cell_name, readable
from src.sweeps.identity import agree, identity_of_arguments, identity_of_composed, identity_of_config, is_execution_key
from src.utils.errors import ConfigError
from src.utils.files import shortened
from tests.sweeps.programs import sweep_of

BASE = ["experiment=ct_postproc", "model=unet", "seed=1"]


@pytest.mark.parametrize(
    "more",
    [
        "run_dir=somewhere",
        "datamodule.data_dir=elsewhere",
        "logger=csv",
        "logger=[]",
        "datamodule.pin_memory=true",
        "debug=true",
        "callbacks.images.num_volumes=1",
        "~callbacks.curves",
        "about.small=an hour",
    ],
)
def test_where_and_how_a_run_is_made_does_not_matter(more: str) -> None:
    assert identity_of_composed([*BASE, more]) == identity_of_composed(BASE)


@pytest.mark.parametrize(
    "more",
    [
        "seed=2",
        "model=iunet",
        "trainer=gpu",
        "trainer.max_epochs=1",
        "datamodule.num_workers=2",
        "backprop=stored",
        "scale=medium",
        "callbacks=guard",
        "monitor.metric=val/ssim",
    ],
)
def test_what_changes_a_result_does(more: str) -> None:
    assert identity_of_composed([*BASE, more]) != identity_of_composed(BASE)


@pytest.mark.parametrize(
    ("data", "same"),
    [
        ("experiment=brats datamodule=brats_demo", True),
        ("experiment=iconvnet_table2 datamodule=cifar10", True),
        ("experiment=irevnet_lab datamodule.verify_checksums=false", False),
        ("experiment=ct_slices datamodule=lodopab", True),
        ("experiment=brats datamodule=brats", False),
        ("experiment=restoration datamodule=pairs", False),
        ("experiment=segmentation datamodule=nnunet", False),
        ("experiment=iconvnet_table1 datamodule=image_folder", False),
    ],
)
def test_the_folder_of_the_data_matters_where_they_are_the_users(data: str, same: bool) -> None:
    here, there = (identity_of_composed([*data.split(), f"datamodule.data_dir={name}"]) for name in ("a", "b"))
    assert (here == there) is same


def test_a_module_of_the_users_needs_no_folder() -> None:
    config = {"datamodule": {"_target_": "my.Data"}, "run_dir": "x"}
    assert identity_of_config(config)["datamodule"] == {"_target_": "my.Data"}


def test_a_default_written_out_is_the_same_run() -> None:
    assert identity_of_composed([*BASE, "scale=small", "trainer.max_epochs=12"]) == identity_of_composed(BASE)


def test_a_value_that_the_network_does_not_have_is_no_other_run() -> None:
    assert identity_of_composed([*BASE, "network.num_couplings=4"]) == identity_of_composed(BASE)
    assert identity_of_composed([*BASE, "network.blowup=4"]) != identity_of_composed(BASE)
    iunet = ["experiment=ct_postproc", "model=iunet"]
    assert identity_of_composed([*iunet, "network.num_couplings=4"]) != identity_of_composed(iunet)


def test_the_summary_of_a_run_has_its_digest() -> None:
    config = plain(compose_config([*BASE, "run_dir=outputs/x/y"]), resolve=True)
    assert config["callbacks"]["best"]["dirpath"] == "outputs/x/y/checkpoints"
    assert identity_of_config(config) == identity_of_composed(BASE)


def test_a_class_of_this_project_is_known_by_its_name_and_another_one_by_its_path() -> None:
    def identity(target: str) -> dict:
        return identity_of_config({"plugins": [{"_target_": target}], "model": {"_target_": target, "name": "src.a.B"}})

    assert identity("src.utils.io.CheckpointIO") == identity("src.runs.io.CheckpointIO")
    assert identity("src.utils.io.CheckpointIO") != identity("src.utils.io.Other")
    assert identity("torch.nn.Linear") != identity("torch.nn.modules.Linear")
    assert identity("src.a.C")["model"]["name"] == "src.a.B"


@pytest.mark.parametrize(
    ("today", "same"),
    [
        ({"a": 1, "compile": None, "watched": False}, True),
        ({"a": 1, "compile": True}, False),
        ({"a": 2}, False),
        ({}, False),
        ({"a": 1, "b": [{"c": None}]}, False),
    ],
)
def test_an_option_added_since_counts_where_it_is_on(today: dict[str, Any], same: bool) -> None:
    assert agree({"a": 1}, today) is same


@pytest.mark.parametrize(
    ("added", "same"),
    [({"norm": "layer"}, True), ({"norm": "batch"}, False), ({"norm": None}, False), ({"x": None}, True)],
)
def test_an_argument_added_since_counts_unless_it_is_the_default(added: dict[str, Any], same: bool) -> None:
    stored = {"model": [{"_target_": "UNet", "in_channels": 1}]}
    assert agree(stored, {"model": [{**stored["model"][0], **added}]}) is same


def test_arguments_that_do_not_compose_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        identity_of_composed(["modle=unet"])


def test_other_programs_are_known_by_their_arguments() -> None:
    assert identity_of_arguments(["a=1", "b=2"]) == identity_of_arguments(["b=2", "run_dir=x", "a=1", "+logger.a=3"])
    assert identity_of_arguments(["a=1"]) != identity_of_arguments(["a=2"])
    assert is_execution_key("logger.wandb.group") and not is_execution_key("logger_of_mine")


@pytest.mark.parametrize(
    ("option", "counts"),
    [
        ("datamodule.generation_workers", False),
        ("datamodule.preprocessing_workers", False),
        ("datamodule.reconstruction_workers", False),
        ("datamodule.cache_dir", False),
        ("datamodule.num_workers", True),
        ("datamodule.batch_size", True),
    ],
)
def test_an_option_counts_if_it_can_change_a_sample(option: str, counts: bool) -> None:
    assert is_execution_key(option) is not counts


def test_names_are_readable_and_good_for_folders() -> None:
    sweep = sweep_of("train.py", **{"network.blowup": [8], "model": ["iunet"], "task.optimizer.lr": [0.00123456]})
    parameters = {"network.blowup": 8, "model": "a/b c", "task.optimizer.lr": 0.00123456}
    assert cell_name(sweep, parameters) == "model-a-b-c_blowup-8_lr-0.00123456"
    search = dataclasses.replace(sweep, method="bayes")
    assert cell_name(search, parameters) == "model-a-b-c_blowup-8_lr-0.001235"
    assert cell_name(sweep_of("train.py"), {}) == "run"


def test_different_numbers_have_different_names() -> None:
    values = [-1, 1, -0.5, 0.5, 1.00001, 1.00002, 1e3, 1e-3, 1e30, 1e-30, 0.1, 0.2 - 0.1]
    assert [readable(value) for value in values[:4]] == ["-1", "1", "-0.5", "0.5"]
    assert len({readable(value) for value in values}) == len(set(values))
    assert [readable(text) for text in ("a/b c", "/é-", "-1", "'a,b'", None)] == ["a-b-c", "", "-1", "a-b", "None"]


def test_long_values_make_short_names_that_differ() -> None:
    values = [f"{'é/long ' * 100}{number}" for number in range(3)]
    names = {cell_name(sweep_of("train.py", model=values), {"model": value}) for value in values}
    assert len(names) == 3 and all(len(f".{name}_01234567.lock.abcdefgh.tmp".encode()) < 255 for name in names)
    assert len({shortened("é" * 200 + end) for end in "ab"}) == 2
    assert all(len(shortened("é" * 200, limit).encode()) <= limit for limit in range(20, 30))
