"""Every choice of every config group composes with every experiment, and names arguments that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.utils.composition import CONFIG_DIR, compose_config
from src.utils.config import check_config
from src.utils.targets import check_targets


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


EXPERIMENTS = choices("experiment")
GROUPS = [folder.name for folder in sorted(CONFIG_DIR.iterdir()) if folder.is_dir() and folder.name != "experiment"]
# trainer/base is what the trainers share.
CHOICES = [(group, choice) for group in GROUPS for choice in choices(group) if (group, choice) != ("trainer", "base")]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(experiment: str, group: str, choice: str) -> None:
    config = compose_config([f"experiment={experiment}", f"{group}={choice}", "run_dir=somewhere"])
    check_config(config)
    OmegaConf.resolve(config)
    check_targets(config)
    assert config.experiment == experiment


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_scale_reaches_the_values_and_the_command_line_wins(experiment: str) -> None:
    sizes = {scale: compose_config([f"experiment={experiment}", f"scale={scale}"]) for scale in choices("scale")}
    assert all(config.scale == scale for scale, config in sizes.items())
    assert compose_config([]) == compose_config(["experiment=ct_postproc", "scale=small"])
    assert compose_config(["scale=paper", "trainer.max_epochs=7"]).trainer.max_epochs == 7


def test_the_papers_scale_is_the_papers() -> None:
    config = compose_config(["experiment=ct_postproc", "scale=paper"])
    assert config.datamodule.size == 256 and config.datamodule.num_train == 180 and config.datamodule.num_test == 20
    assert config.datamodule.batch_size == 1
    assert len(config.network.iunet_channels) == 8 and config.network.num_couplings == 4


def test_the_config_folder_mirrors_src() -> None:
    objects = {"model": "models", "datamodule": "datamodules", "task": "tasks", "callbacks": "callbacks"}
    assert all((Path("src") / folder).is_dir() and group in GROUPS for group, folder in objects.items())
