"""W&B's distributions (docs.wandb.ai, "Sweep configuration options", ``distribution``), drawn by Optuna."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from src.sweeps.sweep import Sweep
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class SearchSpace:
    """The parameters of a sweep as Optuna distributions.

    A normal distribution and categories with probabilities are drawn as quantiles.

    Raises:
        ConfigError: for a distribution that cannot be drawn, by its name.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.constants = {name: spec["value"] for name, spec in sweep.parameters.items() if "value" in spec}
        drawn = {name: spec for name, spec in sweep.parameters.items() if name not in self.constants}
        self._lookups = {name: look_up for name, spec in drawn.items() if (look_up := _look_up(name, spec))}
        self.names = sorted(sweep.parameters)
        self.distributions = {name: _distribution(name, spec) for name, spec in drawn.items()}
        self._listed = {name: spec["values"] for name, spec in drawn.items() if "values" in spec}

    def values(self, trial_params: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that a trial's parameters mean, sorted by name as in a grid."""
        drawn = {name: self._lookups.get(name, lambda value: value)(value) for name, value in trial_params.items()}
        return dict(sorted({**self.constants, **drawn}.items()))

    def examples(self) -> list[dict[str, Any]]:
        """Return arguments as of `values`: as few as have every listed value, with one number of each range."""
        middle = self.values({name: _middle(distribution) for name, distribution in self.distributions.items()})
        count = max(map(len, self._listed.values()), default=1)
        return [{**middle, **{name: v[i % len(v)] for name, v in self._listed.items()}} for i in range(count)]


def _middle(distribution: Any) -> Any:
    """Return a number of a distribution that does not depend on chance; of categories, the first."""
    if hasattr(distribution, "choices"):
        return distribution.choices[0]
    return distribution.low if isinstance(distribution.low, int) else (distribution.low + distribution.high) / 2


def _distribution(name: str, spec: dict[str, Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind = spec.get("distribution")
    if kind == "normal" or "probabilities" in spec:
        return FloatDistribution(1e-6, 1 - 1e-6)  # a quantile, which is looked up
    low: Any = spec.get("min")
    high: Any = spec.get("max")
    step = spec.get("q", 1)
    try:
        if "values" in spec and kind in (None, "categorical"):
            return CategoricalDistribution(spec["values"])
        if kind == "int_uniform" or (kind is None and type(low) is type(high) is int):
            return IntDistribution(low, high)
        if kind in (None, "uniform"):
            return FloatDistribution(low, high)
        if kind == "q_uniform":
            of_integers = type(low) is type(high) is type(step) is int
            return (IntDistribution if of_integers else FloatDistribution)(low, high, step=step)
        if kind == "q_log_uniform_values" and step == 1 and low >= 1:
            return IntDistribution(low, high, log=True)
        if kind in ("log_uniform_values", "q_log_uniform_values"):
            return FloatDistribution(low, high, log=True)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"expected a distribution for {name!r} that can be searched locally: {error}") from error
    raise ConfigError(f"expected a distribution for {name!r} that can be searched locally, got {kind!r}")


def _look_up(name: str, spec: dict[str, Any]) -> Callable[[float], Any] | None:
    """Return what makes a parameter's value from the number that Optuna draws; None where that is the value."""
    if spec.get("distribution") == "normal":
        return statistics.NormalDist(spec.get("mu", 0.0), spec.get("sigma", 1.0)).inv_cdf
    if spec.get("distribution") == "q_log_uniform_values":
        step = spec.get("q", 1)
        return lambda drawn: round(drawn / step) * step
    if "probabilities" not in spec:
        return None
    values, probabilities = spec["values"], spec["probabilities"]
    if len(values) != len(probabilities) or abs(sum(probabilities) - 1) > 1e-6:
        raise ConfigError(f"expected {len(values)} probabilities for {name!r} that add up to 1, got {probabilities}")
    limits = list(itertools.accumulate(probabilities))
    return lambda quantile: next((v for v, limit in zip(values, limits, strict=True) if quantile < limit), values[-1])
