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
# What an experiment is made of, and what may stand in its place.
CLASSIFIERS = ["convnet", "iconvnet", "iresnet", "irevnet", "lab_irevnet", "lab_net"]
FLOWS = ["glow", "iconvnet_flow", "iresnet_flow", "iunet_flow", "realnvp"]
IMAGES = ["cifar10", "mnist"]
PARTS = {
    "ct_postproc": {"model": ["iunet", "partially_reversible_unet", "unet"], "datamodule": ["foam_ct"]},
    "iconvnet_figure2": {"model": ["fourier_convolution"], "datamodule": ["grid"]},
    "iconvnet_figure4": {"model": FLOWS, "datamodule": IMAGES},
    "iconvnet_table1": {"model": CLASSIFIERS, "datamodule": IMAGES},
    "iconvnet_table2": {"model": FLOWS, "datamodule": IMAGES},
    "irevnet_lab": {"model": CLASSIFIERS, "datamodule": IMAGES},
    "brats": {"model": ["iunet", "partially_reversible_unet", "unet"], "datamodule": ["brats", "brats_demo"]},
    "iunet_figures": {"model": ["downsampling"], "datamodule": ["photographs"]},
}
# trainer/base is what the trainers share. An experiment has one task.
COMMON = [(g, c) for g in GROUPS if g not in ("model", "datamodule", "task") for c in choices(g) if c != "base"]
CASES = [
    (experiment, group, choice)
    for experiment, parts in PARTS.items()
    for group, choice in [*COMMON, *((group, choice) for group, names in parts.items() for choice in names)]
]


def test_every_experiment_and_every_part_is_covered() -> None:
    assert sorted(PARTS) == EXPERIMENTS
    for group in ("model", "datamodule"):
        assert {name for parts in PARTS.values() for name in parts[group]} == set(choices(group))
    tasks = {compose_config([f"experiment={e}", "run_dir=x"]).task["_target_"] for e in EXPERIMENTS}
    assert len(tasks) == len(choices("task"))


@pytest.mark.parametrize(("experiment", "group", "choice"), CASES)
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
    assert config.network.num_levels == 8 and config.network.blowup == 16 and config.network.num_couplings == 4


def test_the_config_folder_mirrors_src() -> None:
    objects = {"model": "models", "datamodule": "datamodules", "task": "tasks", "callbacks": "callbacks"}
    assert all((Path("src") / folder).is_dir() and group in GROUPS for group, folder in objects.items())
