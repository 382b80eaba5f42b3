"""Random and Bayesian search by Optuna, with the trials in a file."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.sweeps.cell import Cell, make_cell
from src.sweeps.identity import Identify
from src.sweeps.journal import open_journal
from src.sweeps.runner import Attempt, State
from src.sweeps.search_space import SearchSpace
from src.sweeps.sweep import Sweep
from src.utils.digest import digest
from src.utils.errors import ConfigError
from src.utils.files import write_csv
from src.utils.reading import finite_number

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class Search:
    """A search that can be interrupted: running trials are resumed, finished ones are known.

    ``method: random`` draws at random, ``method: bayes`` by the tree-structured Parzen estimator.

    Args:
        sweep: with ``method`` random or bayes and a metric.
        count: total number of trials, earlier sessions included; None for the sweep's ``run_cap``.
        overrides: further arguments of every trial.
        identify: see `src.sweeps.identity`.
        folder: of the trials and of ``search.journal``, in which each set of parameters, metric and configuration has
            its own trials.

    Raises:
        ConfigError: for a sweep without a metric or number of trials, or with a distribution that cannot be drawn, and
            if ``identify`` refuses its arguments.
    """

    def __init__(self, sweep: Sweep, count: int | None, overrides: list[str], identify: Identify, folder: Path) -> None:
        if sweep.metric is None:
            raise ConfigError("expected a metric for the search to optimise, got none")
        count = sweep.run_cap if count is None else count
        if count is None or count < 1:
            raise ConfigError(f"expected a positive number of trials (--count or run_cap), got {count}")
        self.count = count
        self.metric = sweep.metric
        self._sweep, self._overrides, self._identify, self._folder = sweep, overrides, identify, folder
        self._space = SearchSpace(sweep)
        # Trials with the same parameters share a cell.
        self._numbers: dict[str, list[int]] = defaultdict(list)
        self.study = self._open_study()

    def _open_study(self) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder.mkdir(parents=True, exist_ok=True)
        storage = open_journal(self._folder / "search.journal")
        study = optuna.create_study(
            study_name=self._name(), storage=storage, direction=self.metric.goal, load_if_exists=True
        )
        # With a fixed seed, every session would draw the same values as the first one.
        seed = len(study.trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self._sweep.method == "random":
                study.sampler = optuna.samplers.RandomSampler(seed=seed)
            else:  # with constant_liar parallel trials avoid each other
                study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return study

    def _name(self) -> str:
        """Return a name for all that a trial's value depends on besides the drawn parameters.

        A trial says nothing about a search with another metric, other fixed values or another configuration, and its
        numbers mean others in another space.
        """
        cells = [self._cell_with(parameters) for parameters in self._space.examples()]
        content = [self._sweep.parameters, self.metric.name, self.metric.goal, *(cell.identity for cell in cells)]
        return f"search_{digest(content)}"

    def cells(self) -> Iterator[Cell]:
        """Yield the trials without a result: first those of an interrupted session, then new ones."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if self._is_whole(trial):
                yield self._cell(trial.number, trial.params)
            else:
                self._fail([trial.number])
        while sum(map(self._is_whole, self.study.trials)) < self.count:
            asked = self.study.ask(self._space.distributions)
            yield self._cell(asked.number, asked.params)

    def _is_whole(self, trial: FrozenTrial) -> bool:
        """Whether a trial has all parameters; a trial that was being written when its process was killed lacks some."""
        return trial.params.keys() == self._space.distributions.keys()

    def _fail(self, numbers: Iterable[int]) -> None:
        from optuna.trial import TrialState

        for number in numbers:
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def _cell(self, number: int, params: dict[str, Any]) -> Cell:
        cell = self._cell_with(self._space.values(params))
        self._numbers[cell.folder.name].append(number)
        return cell

    def _cell_with(self, parameters: dict[str, Any]) -> Cell:
        return make_cell(self._sweep, parameters, self._overrides, self._identify, self._folder)

    def tell(self, attempt: Attempt) -> None:
        """Tell Optuna the result of a finished cell; an interrupted one stays open for the next session.

        A trial whose metric is not finite (null in summary.json) counts as failed.

        Raises:
            ConfigError: for a run that did not log the metric.
            FileError: for a damaged summary.
        """
        numbers = self._numbers[attempt.cell.folder.name]
        if attempt.state in (State.FINISHED, State.SKIPPED):
            metrics = attempt.cell.summary()["metrics"]
            if self.metric.name not in metrics:
                known = ", ".join(sorted(metrics))
                raise ConfigError(f"expected the metric {self.metric.name!r} in {attempt.cell.folder}, got {known}")
            value = finite_number(metrics[self.metric.name])
            if value is None:
                self._fail(numbers)
            else:
                for number in numbers:
                    self.study.tell(number, value, skip_if_finished=True)
        elif attempt.state is State.FAILED:
            self._fail(numbers)

    def ranking(self) -> list[tuple[float, dict[str, Any]]]:
        """Return the value and the parameters of every finished trial, the best first."""
        finished = [trial for trial in self.study.trials if trial.value is not None and self._is_whole(trial)]
        ordered = sorted(finished, key=lambda trial: trial.value, reverse=self.metric.goal == "maximize")  # type: ignore[arg-type, return-value]
        return [(float(trial.value or 0.0), self._space.values(trial.params)) for trial in ordered]

    def write_ranking(self) -> Path:
        """Write the ranking to ``trials.csv`` and return its path."""
        names, path = self._space.names, self._folder / "trials.csv"
        rows = ([value, *(params[name] for name in names)] for value, params in self.ranking())
        write_csv(path, [[self.metric.name, *names], *rows])
        return path
