"""Thinning the points of a curve."""

from __future__ import annotations

import math

import numpy as np
import pytest

from src.compare.page import thin


def test_few_points_stay_as_they_are() -> None:
    assert thin([(3, 0.5), (7, math.inf)], 2) == {"step": [3, 7], "value": [0.5, None], "group": 1}


@pytest.mark.parametrize(("count", "limit"), [(101, 10), (2001, 2000), (4000, 2000)])
def test_thinning_keeps_the_mean_and_every_extreme(count: int, limit: int) -> None:
    values = np.random.default_rng(0).normal(size=count)
    values[count // 2] = 1000.0
    curve = thin([(2 * i, value) for i, value in enumerate(values)], limit)
    assert len(curve["step"]) <= limit
    assert max(curve["high"]) == 1000.0
    group = curve["group"]
    assert group == math.ceil(count / limit)
    for position, start in enumerate(range(0, count, group)):
        members = values[start : start + group]
        got = [curve[name][position] for name in ("low", "value", "high")]
        np.testing.assert_allclose(got, [members.min(), members.mean(), members.max()], rtol=1e-5)
        assert 2 * start <= curve["step"][position] < 2 * (start + group)


def test_a_group_without_finite_values_is_a_gap() -> None:
    curve = thin([(0, math.nan), (1, math.nan), (2, 4.0), (3, math.inf)], 2)
    assert (curve["low"], curve["value"], curve["high"]) == ([None, 4.0], [None, 4.0], [None, 4.0])
