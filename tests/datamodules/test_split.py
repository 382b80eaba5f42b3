"""Splits that are drawn: over whole groups, and over cases exactly as ever."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from src.datamodules.brats.releases import find_release
from src.datamodules.groups import check_expression, division_warning, groups_by_name
from src.datamodules.split import SPLITS, draw_split, find_split, read_split


def drawn_over_cases(names, val_fraction, test_fraction, seed):
    """The split of versions without groups."""
    num_val = max(1, round(val_fraction * len(names)))
    num_test = max(1, round(test_fraction * len(names))) if test_fraction > 0 else 0
    order = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    val = sorted(order[:num_val])
    test = sorted(order[num_val : num_val + num_test]) if num_test else val
    return {"train": sorted(order[num_val + num_test :]), "val": val, "test": test}


@pytest.mark.parametrize("fractions", [(0.2, 0.3), (0.09, 0.09), (0.2, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("count", [4, 13, 40])
def test_groups_of_one_case_are_drawn_as_cases_are(count, fractions):
    names = [f"p{index}_0" for index in range(count)]  # p10_0 comes before p1_0, and p1 before p10
    for seed in range(3):
        expected = drawn_over_cases(names, *fractions, seed)
        assert draw_split(names, *fractions, seed) == expected
        assert draw_split(names[::-1], *fractions, seed, groups_by_name(names, "(.+)_0")) == expected


def test_no_patient_is_in_two_parts():
    names = [f"BraTS-GLI-{patient:05d}-{scan:03d}" for patient in range(100) for scan in (0, 1)]
    release = find_release(2023)
    split = draw_split(names, 0.09, 0.09, 0, {name: release.patient(name) for name in names})
    assert [len(split[part]) for part in SPLITS] == [164, 18, 18]
    assert sorted(name for part in SPLITS for name in split[part]) == names
    patients = [{name[:-4] for name in split[part]} for part in SPLITS]
    assert sum(map(len, patients)) == 100


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_as_large_as_whole_groups_allow(seed):
    sizes = np.random.default_rng(seed).integers(1, 8, 30)
    groups = {f"{group}-{case}": str(group) for group, size in enumerate(sizes) for case in range(size)}
    split = draw_split(list(groups), 0.2, 0.1, seed, groups)
    for part, fraction in (("val", 0.2), ("test", 0.1)):
        assert abs(len(split[part]) - fraction * len(groups)) <= 4
    assert sorted(Counter(name for part in SPLITS for name in split[part])) == sorted(groups)
    assert split != draw_split(list(groups), 0.2, 0.1, seed + 1, groups)


def test_each_part_has_a_group_even_if_one_group_has_nearly_all_cases():
    groups = {**{f"a{case:02d}": "a" for case in range(50)}, "b0": "b", "c0": "c"}
    for seed in range(10):
        split = draw_split(list(groups), 0.2, 0.3, seed, groups)
        assert sorted(split["val"] + split["test"]) == ["b0", "c0"] and len(split["train"]) == 50
    pairs = {f"{group}{case}": group for group in "abc" for case in range(9)}
    assert [len(draw_split(list(pairs), 0.1, 0.1, 0, pairs)[part]) for part in SPLITS] == [9, 9, 9]


def test_too_few_groups():
    groups = {f"{group}{case}": group for group in "ab" for case in range(9)}
    with pytest.raises(ValueError, match=r"at least 3 groups of cases, .*, got 2: a, b; test_fraction=0 needs 2"):
        draw_split(list(groups), 0.1, 0.1, 0, groups)
    split = draw_split(list(groups), 0.1, 0.0, 0, groups)
    assert {len(split[part]) for part in SPLITS} == {9} and split["val"] == split["test"]
    with pytest.raises(ValueError, match=r"at least 2 groups .*, got 1: a"):
        draw_split(["a0", "a1", "a2"], 0.1, 0.0, 0, dict.fromkeys(("a0", "a1", "a2"), "a"))


@pytest.mark.parametrize(
    ("release", "case", "patient"),
    [
        ("2017", "Brats17_TCIA_105_1", "Brats17_TCIA_105"),
        ("2018", "BRATS18_2013_10_2", "BRATS18_2013_10"),
        ("2019-et3", "BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB"),
        ("2020", "BraTS20_Training_001", "BraTS20_Training_001"),
        ("2021", "BraTS2021_00000", "BraTS2021_00000"),
        ("2023", "BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("2024", "BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001"),
        ("2024", "BraTS-GoAT-00001", "BraTS-GoAT-00001"),
        ("2018", "case_1", "case_1"),
        ("2023", "case-1", "case-1"),
    ],
)
def test_the_patient_of_a_case(release, case, patient):
    assert find_release(release).patient(case) == patient


@pytest.mark.parametrize(
    ("expression", "groups"),
    [
        (r"(.+)_\d+", ["p1", "p1", "clinic/p2"]),
        ("p[0-9]", ["p1", "p1", "p2"]),
        (None, ["p1_0", "p1_11", "clinic/p2_0"]),
    ],
)
def test_an_expression_finds_the_group(expression, groups):
    names = ["p1_0", "p1_11", "clinic/p2_0"]
    check_expression(expression)
    assert list(groups_by_name(names, expression).values()) == groups


@pytest.mark.parametrize("expression", [r"(.+)_\d+", "^(p)?", "p*"])
def test_names_without_a_group_are_named(expression):
    with pytest.raises(ValueError, match=f"group='{re.escape(expression)}'.* got nothing in odd$"):
        groups_by_name(["p1_0", "odd"], expression)


def test_an_expression_that_is_none():
    with pytest.raises(ValueError, match=r"datamodule\.group as a regular expression.* got '\(\.\+': missing \)"):
        check_expression("(.+")


def test_a_split_that_divides_groups_is_warned_of(tmp_path):
    groups = groups_by_name(["a_0", "a_1", "b_0", "b_1", "c_0"], "(.+)_")
    split = {"train": ["a_0", "c_0"], "val": ["b_0"], "test": ["b_1", "a_1"]}
    warning = division_warning(split, groups, tmp_path / "split.json")
    assert warning is not None and re.match(r"1 groups .*split\.json, .*: a\. Put each", warning)
    assert division_warning({**split, "test": ["b_1"]}, groups, tmp_path) is None


def test_a_fold_needs_a_list_of_folds(tmp_path):
    path, names = tmp_path / "split.json", ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"list of folds.*, for datamodule\.fold=2, got a split that is drawn"):
        find_split(path, names, 0.2, 0.2, 0, 2)
    assert not path.exists()
    find_split(path, names, 0.2, 0.2, 0, 0)
    with pytest.raises(ValueError, match=r"for datamodule\.fold=1, got .*split\.json, which is only one; .*fold=0"):
        read_split(path, names, 1)
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    assert read_split(path, names, 1) == {"train": ["b"], "val": ["a"], "test": ["a"]}
