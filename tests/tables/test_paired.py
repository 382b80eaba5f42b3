"""Differences between runs with the same seed, and which of them are resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from src.tables.paired import comparisons
from src.tables.published import read_published
from src.tables.table import Table, make_table
from tests.tables.samples import PUBLISHED, result

NARROW = {"old": [20.0, 21.0, 20.4], "new": [20.9, 21.3, 21.4]}


def table(tmp_path: Path, results: list[dict[str, Any]], published: str = PUBLISHED) -> Table:
    path = tmp_path / "published.yaml"
    path.write_text(published)
    return make_table(read_published(path), results, "small")


def runs(width: int, values: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [result(model, width, seed, psnr) for model, numbers in values.items() for seed, psnr in enumerate(numbers)]


@pytest.mark.parametrize("shift", [0.0, 0.5, -1.0])
def test_a_difference_is_resolved_where_the_paired_t_test_says_so(shift: float, tmp_path: Path) -> None:
    values = {"old": NARROW["old"], "new": [value + shift for value in NARROW["new"]]}
    (found,) = comparisons(table(tmp_path, runs(8, values)))
    test = ttest_rel(values["new"], values["old"])
    assert (found.row, found.column, found.other, found.count) == (0, 1, "old PSNR", 3)
    assert found.difference.mean == pytest.approx(sum(values["new"]) / 3 - sum(values["old"]) / 3)
    assert found.resolved == (test.pvalue < 0.05)
    # Both happen: 0.73 ± 0.38 and 1.23 ± 0.38 with three seeds.
    assert found.resolved == (shift == 0.5)


def test_one_seed_resolves_nothing_and_other_seeds_count_for_nothing(tmp_path: Path) -> None:
    (found,) = comparisons(
        table(tmp_path, [result("old", 8, 0, 1.0), result("new", 8, 0, 9.0), result("new", 8, 1, 2.0)])
    )
    assert (found.difference.mean, found.difference.deviation, found.resolved) == (8.0, None, None)
    assert list(comparisons(table(tmp_path, [result("old", 8, 0, 1.0), result("new", 8, 1, 9.0)]))) == []


def test_a_row_is_compared_with_the_one_that_it_changes(tmp_path: Path) -> None:
    results = [*runs(8, {"new": [1.0, 2.0]}), *runs(16, {"new": [3.0, 4.5]})]
    (found,) = comparisons(table(tmp_path, results))
    assert (found.row, found.column, found.other) == (1, 1, "narrow")
    assert found.difference.mean == pytest.approx(2.25)
    assert found.difference.deviation == pytest.approx(0.5 / 2**0.5)


SINGLE = """
title: t
source: s
setting: x
head: [network]
columns: [{name: bits, metric: test/psnr, better: min}]
rows:
  - {label: [a], match: {model: a}, values: [1.0]}
  - {label: [b], match: {model: b}, values: [2.0]}
  - {label: [c], match: {model: c}, values: [3.0]}
  - {label: [d], match: {model: d}, values: [4.0]}
"""


def test_the_rows_of_a_single_column_are_compared_in_the_order_of_their_rank(tmp_path: Path) -> None:
    results = runs(8, {"a": [3.0, 3.1], "b": [1.0, 1.2], "c": [2.0, 2.0]})
    found = list(comparisons(table(tmp_path, results, SINGLE)))
    assert [(one.row, one.other, round(one.difference.mean, 9)) for one in found] == [(2, "b", 0.9), (0, "c", 1.05)]


def test_the_rows_of_a_single_column_are_compared_with_the_rows_that_they_name(tmp_path: Path) -> None:
    named = SINGLE.replace("values: [2.0]", "values: [2.0], minus: a").replace(
        "values: [3.0]", "values: [3.0], minus: a"
    )
    results = runs(8, {"a": [3.0, 3.1], "b": [1.0, 1.2], "c": [2.0, 2.0]})
    found = list(comparisons(table(tmp_path, results, named)))
    assert [(one.row, one.other, round(one.difference.mean, 9)) for one in found] == [(1, "a", -1.95), (2, "a", -1.05)]
