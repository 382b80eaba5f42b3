"""Searching with Optuna, stopped and gone on with."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from src.sweeps.cell import Cell
from src.sweeps.identity import identity_of_arguments
from src.sweeps.process import cell_environment
from src.sweeps.runner import Attempt, Runner, State
from src.sweeps.search import Search
from src.sweeps.search_space import SearchSpace
from src.sweeps.sweep import Objective, Sweep
from src.utils.errors import ConfigError
from tests.sweeps.programs import COMMAND, starts, write_program


def sweep(method: str = "bayes", program: str = "train.py", **parameters: Any) -> Sweep:
    return Sweep(program, method, parameters, COMMAND, Objective("loss"), None, tuple(sorted(parameters)))


def search(a_sweep: Sweep, folder: Path, count: int | None = 4) -> Search:
    return Search(a_sweep, count, [], identity_of_arguments, folder)


def finish(cell: Cell, loss: float, **others: float) -> Attempt:
    cell.folder.mkdir(parents=True)
    cell.run.summary.write_text(json.dumps({"metrics": {"loss": loss, **others}}))
    return Attempt(cell, State.FINISHED)


def draws(spec: dict[str, Any], folder: Path, count: int = 60) -> list[Any]:
    found = search(sweep("random", x=spec), folder, count)
    return [cell.parameters["x"] for cell in found.cells()]


@pytest.mark.parametrize(
    ("spec", "low", "high", "kind"),
    [
        ({"min": 0.0, "max": 2.0}, 0.0, 2.0, float),
        ({"distribution": "uniform", "min": 1, "max": 3}, 1.0, 3.0, float),
        ({"min": 2, "max": 5}, 2, 5, int),
        ({"distribution": "int_uniform", "min": 2, "max": 5}, 2, 5, int),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}, 1e-4, 1e-1, float),
        ({"distribution": "q_uniform", "min": 0, "max": 8, "q": 4}, 0, 8, int),
    ],
)
def test_ranges(spec: dict, low: float, high: float, kind: type, tmp_path: Path) -> None:
    values = draws(spec, tmp_path, 50)
    assert all(low <= value <= high and isinstance(value, kind) for value in values)
    assert max(values) - min(values) > 0.6 * (high - low)
    if spec.get("distribution") == "log_uniform_values":
        assert 0.3 < statistics.fmean(value < 10**-2.5 for value in values) < 0.7
    if spec.get("distribution") == "q_uniform":
        assert set(values) == {0, 4, 8}


def test_distributions_are_those_of_wandbs_own_scheduler() -> None:
    wandbs = pytest.importorskip("wandb.sdk.sweeps.scheduler.optuna", reason="a private module of wandb 0.31")
    specs: list[dict[str, Any]] = [
        *({"min": low, "max": high} for low, high in ((0, 3), (0.0, 3), (0.5, 1.5))),
        *({"distribution": kind, "min": 1, "max": 9} for kind in ("uniform", "int_uniform", "log_uniform_values")),
        *({"distribution": "q_uniform", "min": 1, "max": 9, "q": q} for q in (1, 2, 0.5)),
        *({"distribution": "q_log_uniform_values", "min": low, "max": 8, "q": 1} for low in (0.5, 1)),
        *({"values": ["a", 1, None]}, {"distribution": "categorical", "values": [True]}),
    ]
    for spec in specs:
        expected = wandbs.sweep_parameter_to_distribution(spec)
        assert SearchSpace(sweep(x=spec)).distributions == {"x": expected}, spec


def test_a_logarithmic_range_is_rounded(tmp_path: Path) -> None:
    values = draws({"distribution": "q_log_uniform_values", "min": 4, "max": 64, "q": 4}, tmp_path, 40)
    assert all(type(value) is int and value % 4 == 0 and 4 <= value <= 64 for value in values)
    assert 0.3 < statistics.fmean(value <= 16 for value in values) < 0.8


def test_categories_and_constants_keep_their_types(tmp_path: Path) -> None:
    assert set(draws({"values": ["a", 2, True, 0.5]}, tmp_path, 40)) == {"a", 2, True, 0.5}
    found = search(sweep(x={"value": "c"}, y={"values": [1]}), tmp_path / "b", 1)
    assert next(found.cells()).parameters == {"x": "c", "y": 1}


def test_a_normal_distribution_and_probabilities_are_drawn(tmp_path: Path) -> None:
    values = draws({"distribution": "normal", "mu": 3.0, "sigma": 0.5}, tmp_path / "a")
    assert statistics.fmean(values) == pytest.approx(3.0, abs=0.25)
    assert statistics.stdev(values) == pytest.approx(0.5, abs=0.2)
    values = draws({"values": ["a", "b"], "probabilities": [0.9, 0.1]}, tmp_path / "b")
    assert 0.75 < values.count("a") / len(values) < 1
    space = SearchSpace(sweep(x={"values": ["a", "b", "c"], "probabilities": [0.5, 0.25, 0.25]}))
    assert [space.values({"x": q})["x"] for q in (0.0, 0.49, 0.5, 0.74, 0.76, 1.0)] == ["a", "a", "b", "b", "c", "c"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"distribution": "beta"}, "expected a distribution for 'x' that can be searched locally, got 'beta'"),
        ({"distribution": "inv_log_uniform_values", "min": 1, "max": 2}, "'inv_log_uniform_values'"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "expected 2 probabilities for 'x' that add up to 1"),
        ({"min": 3.0, "max": 1.0}, "expected a distribution for 'x'"),
    ],
)
def test_other_distributions_are_refused_by_name(spec: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSpace(sweep(x=spec))


def test_a_search_needs_a_metric_and_a_number(tmp_path: Path) -> None:
    x = {"min": 0.0, "max": 1.0}
    with pytest.raises(ConfigError, match="expected a metric"):
        search(dataclasses.replace(sweep(x=x), metric=None), tmp_path)
    with pytest.raises(ConfigError, match="expected a positive number of trials"):
        search(sweep(x=x), tmp_path, None)
    assert search(dataclasses.replace(sweep(x=x), run_cap=7), tmp_path, None).count == 7
    wrong = search(dataclasses.replace(sweep(x=x), metric=Objective("los")), tmp_path)
    with pytest.raises(ConfigError, match=r"expected the metric 'los' in .*, got loss"):
        wrong.tell(finish(next(wrong.cells()), 1.0))


def test_a_bayesian_search_comes_near_the_best(tmp_path: Path) -> None:
    a_sweep = sweep("bayes", x={"min": -10.0, "max": 10.0})
    found = search(a_sweep, tmp_path, 40)
    for cell in found.cells():
        found.tell(finish(cell, (cell.parameters["x"] - 3) ** 2))
    values = [parameters["x"] for _, parameters in found.ranking()]
    assert values[0] == pytest.approx(3, abs=0.7)
    # It looks where it was good: a random search has a tenth of its draws there.
    later = [trial.params["x"] for trial in found.study.trials[20:]]
    assert statistics.fmean(abs(x - 3) < 1 for x in later) > 0.3
    rows = list(csv.DictReader(found.write_ranking().open()))
    assert float(rows[0]["x"]) == values[0] and len(rows) == 40


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_an_interrupted_search_goes_on_with_its_open_trials(method: str, tmp_path: Path) -> None:
    a_sweep = sweep(method, x={"min": 0.0, "max": 1.0})
    first = search(a_sweep, tmp_path, 5)
    cells = first.cells()
    done, failed, open_ = next(cells), next(cells), next(cells)
    first.tell(finish(done, 0.5))
    first.tell(Attempt(failed, State.FAILED))
    first.tell(Attempt(open_, State.STOPPED))

    second = search(a_sweep, tmp_path, 5)
    names = [cell.name for cell in second.cells()]
    assert names[0] == open_.name and len(names) == 3  # the open one and two new ones
    assert len({done.name, failed.name, *names}) == 5  # a new session does not draw what the first one drew
    assert [value for value, _ in second.ranking()] == [0.5]


def test_a_search_with_other_fixed_values_or_another_space_has_its_own_trials(tmp_path: Path) -> None:
    x, values = {"min": 0.0, "max": 1.0}, {"values": ["a", "b"]}
    first = search(sweep(x=x, model={"value": "unet"}), tmp_path, 1)
    first.tell(finish(next(first.cells()), 0.5))
    for other in (sweep(x=x, model={"value": "iunet"}), sweep(x=x, model=values), sweep(x={**x, "max": 2.0})):
        found = search(other, tmp_path, 1)
        assert found.ranking() == [] and len(list(found.cells())) == 1
    again = search(sweep(x=x, model={"value": "unet"}), tmp_path, 1)
    assert [(value, parameters["model"]) for value, parameters in again.ranking()] == [(0.5, "unet")]


def test_a_search_for_another_metric_has_its_own_trials(tmp_path: Path) -> None:
    a_sweep = sweep(x={"min": 0.0, "max": 1.0})
    first = search(a_sweep, tmp_path, 2)
    for cell in first.cells():
        first.tell(finish(cell, 20.0, ssim=0.5))
    for objective, values in ((Objective("ssim", "maximize"), [0.5]), (Objective("loss", "maximize"), [20.0])):
        found = search(dataclasses.replace(a_sweep, metric=objective), tmp_path, 1)
        assert found.ranking() == []
        for cell in found.cells():  # drawn as in the first search, whose run has this metric too
            found.tell(Attempt(cell, State.SKIPPED))
        assert [value for value, _ in found.ranking()] == values
    assert len(search(a_sweep, tmp_path, 2).ranking()) == 2


def test_a_search_with_another_configuration_has_its_own_trials(tmp_path: Path) -> None:
    learning_rates = {"unet": 0.1, "iunet": 0.2}

    def identify(arguments: list[str]) -> Any:
        return [*arguments, *(rate for name, rate in learning_rates.items() if f"model={name}" in arguments)]

    a_sweep = sweep(model={"values": ["unet", "iunet"]}, x={"min": 0, "max": 9}, y={"min": 0.0, "max": 1.0})
    first = Search(a_sweep, 1, [], identify, tmp_path)
    first.tell(finish(next(first.cells()), 0.5))
    assert len(Search(a_sweep, 1, [], identify, tmp_path).ranking()) == 1
    for name in learning_rates:
        learning_rates[name] += 1
        assert Search(a_sweep, 1, [], identify, tmp_path).ranking() == []


def test_examples_have_every_listed_value() -> None:
    space = SearchSpace(
        sweep(
            a={"value": 7},
            b={"values": ["x", "y", "z"], "probabilities": [0.5, 0.25, 0.25]},
            c={"values": [1, 2]},
            d={"min": 0.0, "max": 1.0},
            e={"distribution": "normal", "mu": 3.0},
            f={"min": 2, "max": 5},
        )
    )
    rest = {"a": 7, "d": 0.5, "e": 3.0, "f": 2}
    assert space.examples() == [{"b": b, "c": c, **rest} for b, c in (("x", 1), ("y", 2), ("z", 1))]


def test_a_maximum_is_found_too(tmp_path: Path) -> None:
    found = search(dataclasses.replace(sweep(x={"values": [1, 2]}), metric=Objective("loss", "maximize")), tmp_path, 6)
    for cell in found.cells():
        found.tell(Attempt(cell, State.SKIPPED) if cell.is_finished() else finish(cell, cell.parameters["x"]))
    # Trials with the same parameters share a run.
    assert len(list(tmp_path.glob("*/summary.json"))) <= 2 and len(found.ranking()) == 6
    assert found.ranking()[0][1]["x"] == 2


def test_a_search_runs_programs_side_by_side(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    a_sweep = sweep("bayes", program, x={"min": 0.0, "max": 1.0}, steps={"value": 1})
    found = search(a_sweep, tmp_path / "runs", 4)
    attempts = Runner(found.cells(), 2, cell_environment(2), on_change=found.tell, poll_s=0.02).run()
    assert [attempt.state for attempt in attempts] == [State.FINISHED] * 4
    assert len(starts(tmp_path / "runs")) == 4
    best, parameters = found.ranking()[0]
    assert best == pytest.approx((parameters["x"] - 0.3) ** 2)
