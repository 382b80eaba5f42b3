"""The keys in which the configurations and machines of runs differ."""

import json
from collections.abc import Sequence
from typing import Any

from src.compare.runs import RunRecord
from src.utils.nested import flat

# The folder of a run and the one it resumed from always differ, and choices give the values that do.
LEFT_OUT = ("run_dir", "resume", "choices")
MACHINE = ("hardware", "versions")


def differences(runs: Sequence[RunRecord]) -> list[tuple[str, list[str | None]]]:
    """Return each dotted key whose value differs between runs, with its value per run; None where it is absent.

    Keys of the configuration come first, then those of ``hardware.`` and ``versions.``, on which times and memory
    depend. An unfinished run does not have the latter; that is not a difference. Neither is an unresolved ``${...}``.
    A run's own folder inside a value is written ``<run_dir>``.
    """
    all_settings = [_settings(run) for run in runs]
    keys = sorted(dict.fromkeys(key for settings in all_settings for key in settings), key=_is_of_machine)
    rows = [(key, [settings.get(key) for settings in all_settings]) for key in keys]
    return [(key, values) for key, values in rows if len({v for v in values if _is_known(key, v)}) > 1]


def _is_of_machine(key: str) -> bool:
    return key.startswith(tuple(f"{name}." for name in MACHINE))


def _is_known(key: str, value: str | None) -> bool:
    return not _is_of_machine(key) if value is None else "${" not in value


def _settings(run: RunRecord) -> dict[str, str]:
    config = {key: value for key, value in run.config.items() if key not in LEFT_OUT}
    machine = {key: run.summary[key] for key in MACHINE if run.summary.get(key)}
    # A summary stored as a result has no run_dir, but other values still contain it.
    folders = (run.config.get("run_dir"), run.config.get("trainer", {}).get("default_root_dir"))
    folder = next((folder for folder in folders if folder and isinstance(folder, str)), None)
    return {key: _text(value, folder) for key, value in {**flat(config), **flat(machine)}.items()}


def _text(value: Any, folder: str | None) -> str:
    value = _without(value, folder) if folder else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _without(value: Any, folder: str) -> Any:
    if isinstance(value, list):
        return [_without(item, folder) for item in value]
    if isinstance(value, str) and (value == folder or value.startswith(f"{folder}/")):
        return f"<run_dir>{value[len(folder) :]}"
    return value
