"""W&B's distributions, drawn by Optuna."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from src.sweeps.sweep import Sweep
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

# What Optuna cannot draw is drawn as a quantile, a number between these, and looked up.
LOWEST_QUANTILE, HIGHEST_QUANTILE = 1e-6, 1 - 1e-6


class SearchSpace:
    """The parameters of a sweep as Optuna distributions.

    Constants, categories, uniform, integer, logarithmic and quantised ranges are mapped by W&B's own code; a normal
    distribution and categories with probabilities are drawn as quantiles.

    Args:
        sweep: whose parameters.

    Raises:
        ConfigError: for a distribution that neither can draw, by its name.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.constants = {name: spec["value"] for name, spec in sweep.parameters.items() if "value" in spec}
        drawn = {name: spec for name, spec in sweep.parameters.items() if name not in self.constants}
        self._lookups = {name: look_up for name, spec in drawn.items() if (look_up := _look_up(name, spec))}
        self.names = sorted(sweep.parameters)
        self.distributions = {name: self._distribution(name, spec) for name, spec in drawn.items()}

    def _distribution(self, name: str, spec: dict[str, Any]) -> BaseDistribution:
        from optuna.distributions import FloatDistribution
        from wandb.sdk.sweeps.scheduler.optuna import sweep_parameter_to_distribution

        if name in self._lookups:
            return FloatDistribution(LOWEST_QUANTILE, HIGHEST_QUANTILE)
        try:
            return sweep_parameter_to_distribution(spec)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"expected a distribution for {name!r} that can be searched locally: {error}") from error

    def values(self, trial_params: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that a trial's parameters mean, sorted by name as in a grid."""
        drawn = {name: self._lookups.get(name, lambda value: value)(value) for name, value in trial_params.items()}
        return dict(sorted({**self.constants, **drawn}.items()))

    def ask(self, study: Any) -> Trial:
        """Return the study's next trial."""
        return study.ask(self.distributions)


def _look_up(name: str, spec: dict[str, Any]) -> Callable[[float], Any] | None:
    """Return the quantile function of a distribution that is drawn by its quantile, None for the others."""
    if spec.get("distribution") == "normal":
        return statistics.NormalDist(spec.get("mu", 0.0), spec.get("sigma", 1.0)).inv_cdf
    if "probabilities" not in spec:
        return None
    values, probabilities = spec["values"], spec["probabilities"]
    if len(values) != len(probabilities) or abs(sum(probabilities) - 1) > 1e-6:
        raise ConfigError(f"expected {len(values)} probabilities for {name!r} that add up to 1, got {probabilities}")
    limits = list(itertools.accumulate(probabilities))
    return lambda quantile: next((v for v, limit in zip(values, limits, strict=True) if quantile < limit), values[-1])
