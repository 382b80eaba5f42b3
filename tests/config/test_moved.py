"""Configurations that earlier versions saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.config.checks import checked, plain
from src.config.composition import compose_config
from src.config.moved import modernised
from src.config.saved import trusted_config
from src.utils.errors import ConfigError

# From a configuration of version 0.
EARLIER = {
    "src.utils.checkpoint_io.AtomicCheckpointIO": "src.runs.checkpoint_io.AtomicCheckpointIO",
    "src.utils.csv_logger.CsvLogger": "src.runs.csv_logger.CsvLogger",
    "src.callbacks.last_checkpoint.LastCheckpoint": "src.runs.last_checkpoint.LastCheckpoint",
    "src.callbacks.curves.Curves": "src.callbacks.pictures.curves.Curves",
}
TOTAL_TIME = {"total_time": {"_target_": "src.callbacks.total_time.TotalTime"}}


@pytest.mark.parametrize(("earlier", "today"), EARLIER.items())
def test_a_class_that_has_moved_is_found_by_its_name(earlier: str, today: str) -> None:
    assert modernised({"a": [{"_target_": earlier, "b": 1}]}) == {"a": [{"_target_": today, "b": 1}]}


@pytest.mark.parametrize(
    "target", ["torch.nn.Linear", "src.models.iunet.IUNet", "src.nowhere.Unknown", "tests.fakes.X"][:4]
)
def test_others_stay(target: str) -> None:
    assert modernised({"_target_": target}) == {"_target_": target}


def test_a_flow_that_has_another_name_today_is_found_by_its_arguments() -> None:
    earlier = {"_target_": "src.models.iconvnet.IConvNetFlow", "num_levels": 2, "num_layers": 8}
    today = "src.models.iconvnet_flows.IConvNetGlowFlow"
    assert modernised({"flow": earlier})["flow"] == {**earlier, "_target_": today}
    poster = {"_target_": "src.models.iconvnet_flows.IConvNetFlow", "num_layers": [3, 3]}
    assert modernised(poster) == poster


def test_the_outputs_of_a_segmentation_were_called_its_loss() -> None:
    earlier = {"_target_": "src.tasks.segmentation.Segmentation", "loss": "sigmoid_regions", "overlap": 0.5}
    assert modernised(earlier) == {"_target_": earlier["_target_"], "outputs": "regions", "overlap": 0.5}


def test_a_configuration_of_an_earlier_version_is_todays(tmp_path: Path) -> None:
    config = compose_config([f"run_dir={tmp_path}", "logger=csv"])
    earlier = plain(config, resolve=False)
    renamed = {today: before for before, today in EARLIER.items()}
    for node in (*earlier["callbacks"].values(), *earlier["logger"].values(), *earlier["trainer"]["plugins"]):
        node["_target_"] = renamed.get(node["_target_"], node["_target_"])
    earlier["callbacks"] |= TOTAL_TIME
    data = earlier["datamodule"]
    for group in ("foam", "scan"):  # whose values were arguments of the datamodule
        data |= {key: value for key, value in data.pop(group).items() if key != "_target_"}
    assert data["size"] == 32 and data["radius"] == [0.6, 0.9]
    assert checked(trusted_config(earlier, [])) == config


def test_a_class_that_is_gone_is_refused() -> None:
    config = plain(compose_config(["run_dir=x"]), resolve=False)
    config["callbacks"]["other"] = {"_target_": "src.callbacks.gone.Gone"}
    with pytest.raises(ConfigError, match=r"got callbacks\.other\._target_=src\.callbacks\.gone\.Gone"):
        trusted_config(config, [])
