"""The cells of a grid, in the order of W&B's server."""

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
    if distribution == "q_uniform":
        return np.arange(spec["min"], spec["max"], spec.get("q", 1.0)).tolist()
    if distribution in (None, "int_uniform") and type(spec.get("min")) is type(spec.get("max")) is int:
        return list(range(spec["min"], spec["max"] + 1))
    raise ConfigError(f"expected value, values, int_uniform or q_uniform for {name!r} in a grid, got {spec}")


def _without_repeats(values: list[Any]) -> list[Any]:
    """As in W&B, 3 and 3.0 are one value, written like the later one; 1, True and "1" are three values."""
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    return list({(type(key), repr(key)): value for key, value in zip(whole, values, strict=True)}.values())
