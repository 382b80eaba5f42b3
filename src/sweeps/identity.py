"""When two runs are the same: their configurations agree in everything that can change a result."""

import inspect
from collections.abc import Callable
from typing import Any

from src.config.influence import WITHOUT_INFLUENCE

# Paths, output and logging, descriptions, and how data are read. The folder of the data is a special case, below.
EXECUTION_KEYS = (
    *("about", "choices", "run_dir", "resume", "debug", "logger"),
    *(f"datamodule.{name}" for name in ("data_dir", *WITHOUT_INFLUENCE)),
)
# Callbacks that save, measure and draw. Others, such as one that picks the tested checkpoint, may change a result.
# (Runs of earlier versions have total_time.)
WATCHING_CALLBACKS = (
    *("last", "interrupt", "random_state", "progress", "learning_rate", "peak_memory", "step_time", "invertibility"),
    *("test_table", "curves", "images", "confusion", "total_time", "hung_run"),
)

# Data that are the same in any folder: simulated, or published as one set.
SAME_EVERYWHERE = {
    *("FoamCTDataModule", "LodopabDataModule", "PhotographsDataModule", "MNISTDataModule", "CIFAR10DataModule"),
}

# From the arguments of a cell to its identity, plain containers.
Identify = Callable[[list[str]], Any]


def is_execution_key(key: str) -> bool:
    """Whether a key of the configuration cannot change a result."""
    others = (*EXECUTION_KEYS, *(f"callbacks.{name}" for name in WATCHING_CALLBACKS))
    return any(key == other or key.startswith(f"{other}.") for other in others)


def identity_of_arguments(arguments: list[str]) -> list[str]:
    """Return the identity of a run of a program that has no configuration of ours."""
    return sorted(word for word in arguments if not is_execution_key(word.lstrip("+~").partition("=")[0]))


def identity_of_composed(arguments: list[str]) -> dict[str, Any]:
    """Return the identity of the run that ``train.py`` does with these arguments.

    Raises:
        ConfigError: if they do not compose.
    """
    from src.config.checks import check_config, plain
    from src.config.composition import compose_config

    config = compose_config(arguments)
    check_config(config)
    config.run_dir = "somewhere"  # null would be replaced in every place where it occurs
    return identity_of_config(plain(config, resolve=True))


def identity_of_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the identity of a run with a resolved configuration, wherever it wrote its files.

    A class of this project counts by its name: moving it to another module does not change a result. The folder of the
    data counts where it has data of the user's.
    """
    # A stored result has no run_dir, but its trainer knows the folder.
    place = config.get("run_dir") or config.get("trainer", {}).get("default_root_dir")
    # Other values refer to the section network, and contain its values once they are resolved.
    identity = _without_place({key: value for key, value in config.items() if key != "network"}, str(place))
    if has_own_data(identity) and "data_dir" in config["datamodule"]:
        identity["datamodule"]["data_dir"] = config["datamodule"]["data_dir"]
    return identity


def has_own_data(identity: Any) -> bool:
    """Whether the run of an identity reads data of the user's, which differ from folder to folder."""
    data = (identity.get("datamodule") if isinstance(identity, dict) else None) or {}
    published = data.get("_target_") in SAME_EVERYWHERE and data.get("verify_checksums", True)
    return bool(data) and not published and not data.get("demo")


def agree(stored: Any, today: Any) -> bool:
    """Whether a stored identity is today's but for options that were added since and change nothing.

    Such an option is an argument of a class with its default value, or another key that is null or false.
    """
    if isinstance(stored, list) and isinstance(today, list):
        return len(stored) == len(today) and all(map(agree, stored, today))
    if not (isinstance(stored, dict) and isinstance(today, dict)):
        return bool(stored == today)
    if not stored.keys() <= today.keys() or not all(agree(stored[key], today[key]) for key in stored):
        return False
    added = today.keys() - stored.keys()
    # Last, because it imports the class.
    defaults = _defaults(today["_target_"]) if added and "_target_" in today else {}
    return not any(today[key] != defaults[key] if key in defaults else today[key] for key in added)


def _defaults(name: str) -> dict[str, Any]:
    """Return the default values of a class, by the name that an identity has of it."""
    from hydra.utils import get_object

    from src.config.trusted import targets_of_configs

    found = [target for target in targets_of_configs() if name in (target, target.rpartition(".")[2])]
    parameters = inspect.signature(get_object(found[0])).parameters.values() if found else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _without_place(node: Any, run_dir: str, key: str = "") -> Any:
    if isinstance(node, dict):
        named = {name: f"{key}.{name}".lstrip(".") for name in node}
        kept = {name: place for name, place in named.items() if not is_execution_key(place)}
        return {name: _without_place(node[name], run_dir, place) for name, place in kept.items()}
    if isinstance(node, list):
        return [_without_place(value, run_dir, f"{key}[]") for value in node]
    if isinstance(node, str) and key.endswith("_target_") and node.startswith("src."):
        return node.rpartition(".")[2]
    if isinstance(node, str) and (node == run_dir or node.startswith(f"{run_dir}/")):
        return "<run_dir>" + node[len(run_dir) :]
    return node
