"""The texts of ``python train.py --help`` and ``python train.py experiment=?``, from the configurations themselves."""

import itertools
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR

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


def help_text(config_dir: Path = CONFIG_DIR) -> str:
    """Return the usage of train.py, the experiments, and every choice of every group with its description."""
    parts = [USAGE, experiments_text(config_dir)]
    for group, meaning in GROUPS.items():
        lines = [f"{group}: {meaning}"]
        for path in sorted((config_dir / group).glob("*.yaml")):
            if path.stem != "base":  # the part that the choices of a group share
                lines.append(f"  {path.stem:26}{_first_sentence(path)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def experiments_text(config_dir: Path = CONFIG_DIR) -> str:
    """Return the experiments with their descriptions and the time and memory of each scale."""
    lines = ["experiment: time and memory of each scale"]
    for path in sorted((config_dir / "experiment").glob("*.yaml")):
        node = OmegaConf.load(path)
        about = node.get("about", {}) if isinstance(node, DictConfig) else {}
        lines.append(f"  {path.stem:26}{about.get('what', '')}".rstrip())
        lines += [f"      {scale:22}{about[scale]}" for scale in SCALES if scale in about]
    return "\n".join(lines) + "\n"


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment at the beginning of a file."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    text = " ".join(line.lstrip("# ") for line in comment if not line.startswith("# @package"))
    return text.partition(". ")[0].rstrip(".")
