"""The cells of a grid, in the order in which W&B's server hands them out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from src.sweeps.sweep import Sweep
from src.utils.errors import ConfigError


def grid(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the parameters of every cell: all combinations, the alphabetically last parameter varying fastest.

    Raises:
        ConfigError: for a parameter that has no finite list of values.
    """
    names = sorted(sweep.parameters)
    values = [_without_repeats(_values(name, sweep.parameters[name])) for name in names]
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]


def _values(name: str, spec: dict[str, Any]) -> list[Any]:
    """The values of a parameter, as wandb/sweeps' grid search expands them."""
    distribution = spec.get("distribution")
    if "value" in spec and distribution in (None, "constant"):
        return [spec["value"]]
    if "values" in spec and "probabilities" not in spec and distribution in (None, "categorical"):
        return list(spec["values"])
    bounds = (spec.get("min"), spec.get("max"))
    if distribution == "q_uniform":
        return np.arange(*bounds, spec.get("q", 1.0)).tolist()
    if distribution in (None, "int_uniform") and all(type(bound) is int for bound in bounds):
        return list(range(spec["min"], spec["max"] + 1))
    raise ConfigError(f"expected value, values, int_uniform or q_uniform for {name!r} in a grid, got {spec}")


def _without_repeats(values: list[Any]) -> list[Any]:
    # 1, 1.0 and True are equal and still three different arguments.
    return list({(type(value), repr(value)): value for value in values}.values())
