"""A W&B sweep file, read without W&B's server."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from src.config.composition import parse_overrides
from src.sweeps.arguments import values_of
from src.utils.errors import ConfigError, did_you_mean
from src.utils.reading import read_yaml, reading

METHODS = ("grid", "random", "bayes")
# The keys of a sweep file: those that reproduce.py follows, and those that only W&B's pages use.
KEYS = (
    *("program", "method", "metric", "parameters", "command", "run_cap"),
    *("name", "description", "project", "entity", "apiVersion", "kind"),
)
GOALS = ("minimize", "maximize")
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")


@dataclass(frozen=True)
class Objective:
    """The metric of summary.json that a search optimises, and ``minimize`` or ``maximize``."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"


@dataclass(frozen=True)
class Sweep:
    """A sweep: which program, with which arguments.

    Attributes:
        program: the script that every cell runs.
        method: ``grid``, ``random`` or ``bayes``.
        parameters: W&B's specification (``value``, ``values``, ``min`` and ``max``, ``distribution``) by argument name.
        command: W&B's template of the command line.
        metric: the metric that a search optimises; None for a grid without one.
        run_cap: the number of trials of a search; None if the file does not say.
        varied: the parameters with more than one value in the file; they name a cell.
    """

    program: str
    method: str
    parameters: dict[str, dict[str, Any]]
    command: tuple[str, ...]
    metric: Objective | None
    run_cap: int | None
    varied: tuple[str, ...]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        FileError: for a file that is missing or damaged.
        ConfigError: for a file that is no sweep, or that needs W&B's server.
    """
    with reading(path, "a sweep file"):
        return _sweep(read_yaml(path, "a sweep file"), str(path))


def _sweep(content: dict[str, Any], place: str) -> Sweep:
    if "early_terminate" in content:
        raise ConfigError(
            f"expected no early_terminate in {place}: only W&B's server stops runs early, under `wandb agent`"
        )
    for key in content:
        if key not in KEYS:
            raise ConfigError(
                f"expected a key of a sweep that can run locally in {place}, got {key!r}{did_you_mean(str(key), KEYS)}"
            )
    for key in ("program", "method", "parameters"):
        if not content.get(key):
            raise ConfigError(f"expected {key} in {place}, got none")
    if content["method"] not in METHODS:
        raise ConfigError(f"expected method to be one of {', '.join(METHODS)} in {place}, got {content['method']!r}")
    parameters = content["parameters"]
    for name, spec in parameters.items():
        _check_parameter(name, spec, place)
    return Sweep(
        program=content["program"],
        method=content["method"],
        parameters=parameters,
        command=tuple(map(str, content.get("command") or DEFAULT_COMMAND)),
        metric=_metric(content.get("metric"), place),
        run_cap=content.get("run_cap"),
        varied=tuple(sorted(name for name, spec in parameters.items() if "value" not in spec)),
    )


def _check_parameter(name: str, spec: Any, place: str) -> None:
    if not isinstance(spec, dict):
        raise ConfigError(f"expected parameters.{name} in the form {{values: [1, 2]}} in {place}, got {spec!r}")
    if "parameters" in spec:
        raise ConfigError(f"expected dotted names ({name}.<key>) instead of nested parameters in {place}, got {name}")
    if "value" not in spec and not spec.get("values") and "distribution" not in spec and not {"min", "max"} <= {*spec}:
        raise ConfigError(f"expected parameters.{name} to have value, values, or min and max in {place}, got {spec}")


def _metric(content: Any, place: str) -> Objective | None:
    if content is None:
        return None
    if not isinstance(content, dict) or not content.get("name") or content.get("goal", GOALS[0]) not in GOALS:
        raise ConfigError(f"expected metric {{name: ..., goal: {' | '.join(GOALS)}}} in {place}, got {content!r}")
    return Objective(content["name"], content.get("goal", GOALS[0]))


def with_overrides(sweep: Sweep, overrides: list[str]) -> tuple[Sweep, list[str]]:
    """Return the sweep with the values that the command line gives its parameters, and all other overrides.

    ``seed=0,1`` gives a parameter of the sweep two values, ``model=unet`` one. ``trainer.max_epochs=1``, which is not a
    parameter of the sweep, goes to every cell.

    Raises:
        ConfigError: for an argument that is not ``key=value``, and for several values of what the file does not vary.
    """
    parameters, others = dict(sweep.parameters), []
    for override in parse_overrides(overrides):
        values = values_of(override)
        known = override.key_or_group in parameters and not override.is_add() and not override.is_delete()
        if known and len(values) > 1 and override.key_or_group not in sweep.varied:
            # Names of cells and rows of tables do not tell such values apart.
            raise ConfigError(
                f"expected one value of {override.key_or_group}, which the sweep file does not vary, "
                f"got {override.input_line!r}"
            )
        if known:
            parameters[override.key_or_group] = {"value": values[0]} if len(values) == 1 else {"values": values}
        elif len(values) > 1:
            raise ConfigError(
                f"expected a single value for a key that is not a parameter of the sweep, got {override.input_line!r}"
                f"{did_you_mean(override.key_or_group, sweep.parameters)}"
            )
        else:
            others.append(str(override.input_line))
    return dataclasses.replace(sweep, parameters=parameters), others
