"""The committed results: tables follow from them, rates from the studies, and every number in a README has its file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.composition import compose_config
from src.sweeps.plan import EXPERIMENTS, make_plan
from src.sweeps.sweep import read_sweep
from src.tables.latex import to_latex
from src.tables.markdown import to_excerpt, to_markdown
from src.tables.published import read_published
from src.tables.results import load
from src.tables.study import best_rates, read_study
from src.tables.table import make_table

ROOT = EXPERIMENTS.parent
STORED = sorted({path.parent for path in EXPERIMENTS.glob("*/results/*/*.json")})
STUDIES = sorted(EXPERIMENTS.glob("*/results/*/learning_rates.csv"))
READMES = sorted(EXPERIMENTS.glob("*/README.md"))
# A decimal number, with a power of ten if it has one. Whole numbers are sizes and counts, which no result has to show.
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*\.\d+(?:e[+-]?\d+)?(?![\w.])")


def place(path: Path) -> str:
    return "/".join(path.relative_to(EXPERIMENTS).parts)


@pytest.mark.parametrize("folder", STORED, ids=place)
def test_a_table_follows_from_its_results_letter_by_letter(folder: Path) -> None:
    changes = [change.replace("-", "=", 1) for change in folder.name.split("_")[1:]]
    plan = make_plan(EXPERIMENTS, folder.parts[-3], changes)
    results, _ = load(folder)
    table = make_table(read_published(folder.parents[1] / "published.yaml"), results, plan.scale, plan.changes)
    assert to_markdown(table, plan.command) == (folder / "table.md").read_text()
    assert to_latex(table) == (folder / "table.tex").read_text()
    shown = (folder.parents[1] / "README.md").read_text().partition(f"<!-- results/{folder.name} -->\n")[2]
    assert shown.partition("<!-- end of results -->")[0] in ("", to_excerpt(table))


@pytest.mark.parametrize("path", STUDIES, ids=place)
def test_each_network_has_the_rate_that_its_study_found(path: Path) -> None:
    sweep = read_sweep(path.parents[2] / "learning_rates.yaml")
    fixed = {name: spec["value"] for name, spec in sweep.parameters.items() if "value" in spec}
    for model, rate in best_rates(path, sweep).items():
        config = compose_config([f"experiment={fixed['experiment']}", f"scale={fixed['scale']}", f"model={model}"])
        assert config.task.optimizer.lr == rate, model


@pytest.mark.parametrize("path", STUDIES, ids=place)
def test_no_best_rate_is_the_largest_or_smallest_without_a_word(path: Path) -> None:
    """A best rate at the end of its grid may not be the best; the README then has to say so."""
    sweep = read_sweep(path.parents[2] / "learning_rates.yaml")
    rates = sorted({float(row["task.optimizer.lr"]) for row in read_study(path)})
    at_end = [model for model, rate in best_rates(path, sweep).items() if rate in (rates[0], rates[-1])]
    assert not at_end or "end of the grid" in (path.parents[2] / "README.md").read_text(), at_end


@pytest.mark.parametrize("path", READMES, ids=place)
def test_every_number_in_a_table_of_a_readme_has_its_file(path: Path) -> None:
    known = sorted({*numbers_of(path.parent), *numbers_of_named_files(path)})
    rows = [line for line in path.read_text().splitlines() if line.startswith("|")]
    missing = [text for row in rows for text in NUMBER.findall(row) if not is_among(text, known)]
    assert not missing, f"in no file of {path.parent.name}/results and not published: {missing}"


def numbers_of_named_files(readme: Path) -> Iterator[float]:
    """Yield the numbers in files of benchmarks/results that a README names."""
    for name in re.findall(r"benchmarks/results/[\w.]+\.json", readme.read_text()):
        yield from scaled(leaves(json.loads((ROOT / name).read_text())))


def leaves(node: Any) -> Iterator[float]:
    """Yield every number in plain containers."""
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    elif type(node) in (int, float):
        yield float(node)


def is_among(text: str, known: list[float]) -> bool:
    """Whether a number, rounded to the digits of the text, is the text."""
    mantissa, _, exponent = text.replace(",", "").partition("e")
    digits = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - digits)
    value = float(text.replace(",", ""))
    return any(abs(abs(number) - abs(value)) <= 0.5 * unit * (1 + 1e-6) for number in known)


def numbers_of(folder: Path) -> Iterator[float]:
    """Yield every number of an experiment's results, in the units of its tables, and every published one."""
    for path in sorted(folder.glob("results/**/*")):
        if path.suffix == ".json":
            yield from scaled(leaves(json.loads(path.read_text())))
        elif path.suffix == ".csv":
            yield from scaled(n for row in csv.reader(path.read_text().splitlines()) for n in as_numbers(row))
        elif path.suffix == ".md":  # means, deviations and differences
            yield from (float(n.replace(",", "")) for n in NUMBER.findall(path.read_text()))
    published = yaml.safe_load((folder / "published.yaml").read_text())
    yield from (float(value) for row in published["rows"] for value in row["values"] if value is not None)


def scaled(numbers: Iterator[float]) -> Iterator[float]:
    """Yield each number, and what it is in per cent, milliseconds, minutes, millions and GiB."""
    for number in numbers:
        yield from (number, 100 * number, 1000 * number, number / 60, number / 1e6, number / 2**30)


def as_numbers(texts: list[Any]) -> Iterator[float]:
    for text in texts:
        if re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text):
            yield float(text)


def test_a_number_without_a_file_is_found() -> None:
    assert is_among("18.87", [18.8651]) and is_among("4.8e-7", [4.76e-7]) and is_among("-0.05", [0.0495])
    assert not is_among("18.87", [18.8649, 18.8751]) and not is_among("4.8e-7", [4.7e-7])
    assert NUMBER.findall("| 0.740 | **20.57** ± 0.1 | 1.2e-3 | 63,194 | 256³ | v1.2.3 |") == [
        "0.740", "20.57", "0.1", "1.2e-3"
    ]  # fmt: skip
