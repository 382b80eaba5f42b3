"""Checks of what an experiment's task is trained with: optimizer, schedule and loss."""

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR, SECTION_GROUPS, choices_of
from src.config.targets import HYDRA_KEYS
from src.utils.errors import ConfigError

LOSS = "task/loss"
OPTIMIZER = "task/optimizer"


def check_choices(config: DictConfig) -> None:
    """Check that ``task`` has an optimizer, a schedule and a loss that are objects, fit the task, and have numbers.

    Raises:
        ConfigError: naming the choice or key, and what was expected.
    """
    for group, place in SECTION_GROUPS.items():
        node = OmegaConf.select(config, place)
        if node is not None and not isinstance(node, DictConfig):
            raise ConfigError(
                f"expected {group}=<choice> with a slash, one of {', '.join(choices_of(group))}, got {place}={node}"
            )
    if config.task.get("optimizer") is None:
        raise ConfigError(f"expected task/optimizer to be one of {', '.join(choices_of(OPTIMIZER))}, got none")
    _check_numbers(config.task.optimizer)
    _check_loss(config.task)


def _check_numbers(optimizer: DictConfig) -> None:
    """Refuse text for the arguments of torch's optimizers, whose hints include tensors."""
    if not str(optimizer.get("_target_")).startswith("torch.optim."):
        return
    for key in map(str, optimizer):
        value = optimizer[key]
        if key in HYDRA_KEYS:
            continue
        if isinstance(value, str):
            raise ConfigError(f"expected task.optimizer.{key} to be a number, got {value!r}")
        if key == "lr" and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            raise ConfigError(f"expected task.optimizer.lr to be a positive number, got {value!r}")


def _check_loss(task: DictConfig) -> None:
    """Refuse the loss of another task: only those of segmentation are completed by what the outputs mean."""
    criterion = task.get("criterion")
    kinds = {"Reconstruction": False, "Segmentation": True}
    wanted = kinds.get(str(task.get("_target_")).rpartition(".")[2])
    if criterion is None or wanted is None or bool(criterion.get("_partial_")) == wanted:
        return
    fitting = [choice for choice in choices_of(LOSS) if bool(_loaded(LOSS, choice).get("_partial_")) == wanted]
    raise ConfigError(
        f"expected {LOSS} to be one of {', '.join(fitting)} for {task['_target_']}, got {criterion.get('_target_')}"
    )


def kept_learning_rate(overrides: Iterable[str], config: DictConfig) -> str | None:
    """Return a note for an optimizer that the command line chose, if it gets a learning rate meant for another one."""
    words = list(overrides)
    chosen = next((word.partition("=")[2] for word in words if word.startswith(f"{OPTIMIZER}=")), None)
    if chosen is None or any(word.lstrip("+").startswith("task.optimizer.lr=") for word in words):
        return None
    own, kept = _loaded(OPTIMIZER, chosen).lr, config.task.optimizer.lr
    if own == kept:
        return None
    return f"note: task.optimizer.lr={kept:g} is the experiment's; {OPTIMIZER}={chosen} alone has {own:g}"


def _loaded(group: str, choice: str) -> Any:
    return OmegaConf.load(CONFIG_DIR / group / f"{choice}.yaml")
