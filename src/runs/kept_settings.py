"""Settings that a resumed training takes from its checkpoint, whatever its configuration says."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.config.moved import modernised
from src.tasks.base import Task
from src.tasks.updates import check_updates
from src.utils.nested import flat

# The key of a class among its arguments.
TARGET = "_target_"


def check_kept_settings(checkpoint: dict[str, Any], config: DictConfig, task: Task) -> None:
    """Check that a configuration does not change what its checkpoint decides: the values would be reported, not used.

    A checkpoint decides on the optimizer, on a schedule that keeps a state, on the patience of early stopping, and on
    the learning rate where ``callbacks.lr_finder`` has found it. Everything else takes effect, also the settings of a
    schedule whose factors depend on the step alone.

    Args:
        checkpoint: of a training.
        config: of the resumed run.
        task: built from it.

    Raises:
        ValueError: naming the keys with their values in the training and in ``config``.
    """
    schedule = check_updates(task)
    states = [checkpoint.get("lr_schedulers", []), [] if schedule is None else [schedule.state_dict()]]
    is_free = all(map(_depends_on_step, states))
    # The folder may be another one.
    saved = OmegaConf.create({**modernised(checkpoint["config"]), "run_dir": config.run_dir})
    (before, patience_before), (now, patience_now) = ((_kept(c, is_free), _patience(c)) for c in (saved, config))
    for watch in patience_before.keys() & patience_now.keys():
        before[f"{watch[0]}.patience"], now[f"{watch[0]}.patience"] = patience_before[watch], patience_now[watch]
    changed = [key for key in sorted({**before, **now}) if before.get(key) != now.get(key)]
    # Another class has other arguments.
    classes = tuple(key.removesuffix(TARGET) for key in changed if key.endswith(f".{TARGET}"))
    changed = [key for key in changed if key.endswith(f".{TARGET}") or not key.startswith(classes)]
    if changed:
        raise ValueError(
            f"expected {_shown(before, changed)} as in the training, because the checkpoint keeps it, "
            f"got {_shown(now, changed)}; leave it out to resume, or start a new run"
        )


def _depends_on_step(states: list[Mapping[str, Any]]) -> bool:
    """Whether there is a schedule that keeps no more than the step and the first learning rates, as a LambdaLR does."""
    factors = [factor for state in states for factor in state.get("lr_lambdas", [state])]
    return bool(factors) and all(factor is None for factor in factors)


def _kept(config: DictConfig, is_free: bool) -> dict[str, Any]:
    """Return the values that a checkpoint decides on by their dotted keys, but for the patience of early stopping."""
    nodes = {f"callbacks.{name}": node for name, node in _callbacks(config, "LRFinder")}
    for section in ("optimizer", *(() if is_free else ("scheduler",))):
        nodes[f"task.{section}"] = config.task.get(section)
    return flat({key: _plain(node) for key, node in nodes.items()})


def _patience(config: DictConfig) -> dict[tuple[str, ...], Any]:
    """Return the patience of early stopping by the callback's key and what it watches: another metric begins anew."""
    stops = [(f"callbacks.{name}", _plain(node)) for name, node in _callbacks(config, "EarlyStopping")]
    return {(key, node.get("monitor"), node.get("mode")): node.get("patience") for key, node in stops}


def _callbacks(config: DictConfig, kind: str) -> Iterable[tuple[str, Any]]:
    nodes = (config.get("callbacks") or {}).items()
    return [(str(name), node) for name, node in nodes if node and str(node.get(TARGET)).endswith(f".{kind}")]


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _shown(values: Mapping[str, Any], keys: list[str]) -> str:
    shown = {key.removesuffix(f".{TARGET}"): values.get(key) for key in keys}
    return " ".join(f"{key}={'null' if value is None else value}" for key, value in shown.items())
