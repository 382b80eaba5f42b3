"""The texts of ``python train.py --help`` and ``python train.py experiment=?``, from the configurations themselves."""

import itertools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.config.composition import CONFIG_DIR, choices_of

USAGE = """\
python train.py [group=choice] [key=value] [+new.key=value]

  experiment=<name>  scale=small|medium|paper     what to train and at which size
  model=<network>  backprop=reversible|stored|checkpoint|memcnn
  resume=<run folder>|auto                        continue an interrupted run
  trainer.max_epochs=3  task.optimizer.lr=1e-3    any value of the configuration; --cfg job shows all of them
  --multirun seed=0,1,2                           one run after the other
"""
GROUPS = {
    "model": "the network",
    "datamodule": "the data",
    "task": "the loss and the metrics; set by the experiment",
    "task/loss": "what is minimised, by reconstruction or by segmentation",
    "task/optimizer": "how the weights are updated; task.optimizer.lr=... sets the learning rate",
    "task/scheduler": "the learning rate over the run",
    "trainer": "hardware and number of processes",
    "logger": "where metrics and pictures are logged; combine with logger=[csv,tensorboard]",
    "callbacks": "checkpoints, pictures and checks during training; combine with callbacks=[default,early_stopping]",
}
SCALES = ("small", "medium", "paper")


def help_text() -> str:
    """Return the usage of train.py, the experiments, and every choice of every group with its description."""
    parts = [USAGE, experiments_text()]
    for group, meaning in GROUPS.items():
        lines = [f"{group}: {meaning}"]
        for path in sorted((CONFIG_DIR / group).glob("*.yaml")):
            if path.stem != "base":  # the part that the choices of a group share
                lines.append(f"  {path.stem:26}{_first_sentence(path)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def experiments_text() -> str:
    """Return the experiments with their descriptions, the time and memory of each scale, and what changes them."""
    lines = ["experiment: time and memory of each scale, and experiments that change it"]
    files = {name: CONFIG_DIR / "experiment" / f"{name}.yaml" for name in choices_of("experiment")}
    nodes: dict[str, Any] = {name: OmegaConf.load(path) for name, path in files.items()}
    for experiment in [name for name in nodes if "/" not in name]:
        about = nodes[experiment].get("about", {})
        lines.append(f"  {experiment:26}{about.get('what', '')}".rstrip())
        lines += [f"      {scale:22}{about[scale]}" for scale in SCALES if scale in about]
        variants = [name for name in nodes if f"/experiment/{experiment}" in nodes[name].get("defaults", [])]
        lines += [f"    {name:23} {_first_sentence(files[name]).partition(': ')[0]}" for name in variants]
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment at the beginning of a file."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.lstrip("# ") for line in comment if not line.startswith("# @package"))
    return text.partition(". ")[0].rstrip(".")
