"""Every choice of every config group composes, and names arguments that exist; every value of a file counts."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from src.config.checks import check_config
from src.config.composition import CONFIG_DIR, SECTION_GROUPS, compose_config
from src.config.targets import check_targets
from src.utils.nested import flat


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


EXPERIMENTS = choices("experiment")
GROUPS = [folder.name for folder in sorted(CONFIG_DIR.iterdir()) if folder.is_dir() and folder.name != "experiment"]
GROUPS += SECTION_GROUPS
# What an experiment is made of, and what may stand in its place.
PARTS = {
    path.stem: OmegaConf.to_container(OmegaConf.load(path).about.fits)
    for path in sorted((CONFIG_DIR / "experiment").glob("*.yaml"))
}
# What no experiment chooses composes with all of them as with the default one. trainer/base is what the trainers share;
# an experiment has one task.
COMMON = [g for g in GROUPS if g not in ("model", "datamodule", "task", "scale")]
CASES = [
    ("ct_postproc", group, choice)
    for group in COMMON
    for choice in choices(group)
    if choice != "base" and group != "task/loss"
]
CASES += [
    (experiment, "task/loss", choice) for experiment, choice in (("ct_postproc", "l1_ssim"), ("brats", "tversky"))
]
CASES += [
    (experiment, group, choice)
    for experiment, parts in PARTS.items()
    for group, names in parts.items()
    for choice in names
]
# experiment/<name>/<file>.yaml: the values of a scale, or an experiment that changes another one.
SCALE_FILES = [(e, s) for e in EXPERIMENTS for s in choices("scale")]
VARIANTS = sorted(
    str(path.relative_to(CONFIG_DIR / "experiment").with_suffix(""))
    for path in (CONFIG_DIR / "experiment").glob("*/*.yaml")
    if path.parent.name not in EXPERIMENTS
)


@cache
def composed(*overrides: str) -> DictConfig:
    return compose_config([*overrides, "run_dir=somewhere"])


def check(config: DictConfig) -> None:
    config = config.copy()
    check_config(config)
    OmegaConf.resolve(config)
    check_targets(config)


def test_every_experiment_and_every_task_is_covered() -> None:
    tasks = {composed(f"experiment={e}", "scale=small").task["_target_"] for e in EXPERIMENTS}
    assert len(tasks) == len(choices("task"))


@pytest.mark.parametrize("group", ["model", "datamodule"])
def test_parts_outside_of_all_experiments_name_arguments_that_exist(group: str) -> None:
    for choice in set(choices(group)) - {name for parts in PARTS.values() for name in parts[group]}:
        node = OmegaConf.load(CONFIG_DIR / group / f"{choice}.yaml")
        assert any(is_valid_part(experiment, group, node.get(group, node)) for experiment in EXPERIMENTS), choice


def is_valid_part(experiment: str, group: str, node: DictConfig) -> bool:
    """Whether an experiment has the values that a part refers to, and the part's own are those of its constructors."""
    config = composed(f"experiment={experiment}").copy()
    config[group] = node
    with suppress(InterpolationKeyError):
        check(config)
        return True
    return False


@pytest.mark.parametrize(("experiment", "group", "choice"), CASES)
def test_every_choice_composes(experiment: str, group: str, choice: str) -> None:
    config = composed(f"experiment={experiment}", f"{group}={choice}")
    check(config)
    assert config.experiment == experiment


def values_of_file(path: Path) -> dict[str, Any]:
    """The dotted values that a file gives, itself or through the files that it starts from."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    bases = [name for name in content.pop("defaults", []) if isinstance(name, str) and name != "_self_"]
    paths = [CONFIG_DIR / f"{name[1:]}.yaml" if name[0] == "/" else path.with_name(f"{name}.yaml") for name in bases]
    return {key: value for base in paths for key, value in values_of_file(base).items()} | flat(content)


def check_every_value_counts(name: str, config: DictConfig) -> None:
    values = values_of_file(CONFIG_DIR / "experiment" / f"{name}.yaml")
    found = flat(OmegaConf.to_container(config))  # type: ignore[arg-type]
    assert values and {key: found[key] for key in values if key in found} == values


@pytest.mark.parametrize(("experiment", "scale"), SCALE_FILES)
def test_every_value_of_a_scale_reaches_the_configuration(experiment: str, scale: str) -> None:
    # A network that has nothing of its own in configs/training.
    plain = ["model=partially_reversible_unet"] if (CONFIG_DIR / "training" / experiment).exists() else []
    config = composed(f"experiment={experiment}", f"scale={scale}", *plain)
    check(config)
    assert config.experiment == experiment and config.scale == scale
    check_every_value_counts(f"{experiment}/{scale}", config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_value_of_an_experiment_that_changes_another_reaches_the_configuration(variant: str) -> None:
    config = composed(f"experiment={variant}")
    check(config)
    check_every_value_counts(variant, config)


def test_the_defaults_are_what_they_say_and_the_command_line_wins() -> None:
    assert compose_config([]) == compose_config(["experiment=ct_postproc", "scale=small"])
    assert compose_config(["scale=paper", "trainer.max_epochs=7"]).trainer.max_epochs == 7


def test_the_papers_scale_is_the_papers() -> None:
    config = compose_config(["experiment=ct_postproc", "scale=paper"])
    assert (
        config.datamodule.scan.size == 256 and config.datamodule.num_train == 180 and config.datamodule.num_test == 20
    )
    assert config.datamodule.batch_size == 1
    assert config.network.num_levels == 8 and config.network.blowup == 16 and config.network.num_couplings == 4


@pytest.mark.parametrize("model", PARTS["restoration"]["model"])
def test_the_networks_dimensions_and_channels_follow_the_data(model: str) -> None:
    data = ["datamodule.spatial_dims=2", "datamodule.channels=3", "datamodule.target_channels=1"]
    net = instantiate(composed("experiment=restoration", f"model={model}", *data).model)
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_the_config_folder_mirrors_src() -> None:
    objects = {"model": "models", "datamodule": "datamodules", "task": "tasks", "callbacks": "callbacks"}
    assert all((Path("src") / folder).is_dir() and group in GROUPS for group, folder in objects.items())
