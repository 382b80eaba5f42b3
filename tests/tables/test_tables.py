"""A published table beside results: means, ranks, differences, Markdown, LaTeX, figure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.sweeps.plan import Plan
from src.sweeps.process import cell_environment
from src.sweeps.runner import Runner
from src.tables.figure import draw
from src.tables.latex import escaped, to_latex
from src.tables.markdown import to_excerpt, to_markdown
from src.tables.numbers import mean_text
from src.tables.published import Published, read_published
from src.tables.readme import fill
from src.tables.render import render
from src.tables.results import describe, fits, load, result_of, store
from src.tables.table import Measured, Table, make_table
from src.tasks.metrics import decimal
from src.utils.digest import digest
from src.utils.errors import ConfigError
from src.utils.reading import FileError
from tests.sweeps.programs import cells_of, sweep_of, write_program
from tests.tables.samples import PUBLISHED, RESULTS, result

GOLDEN = Path(__file__).with_name("golden.md")


@pytest.fixture
def published(tmp_path: Path) -> Published:
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED)
    return read_published(path)


@pytest.fixture
def table(published: Published) -> Table:
    return make_table(published, RESULTS, "small")


def test_means_deviations_and_seeds(table: Table) -> None:
    narrow = table.entries[0][0].measured
    assert narrow is not None and narrow.mean == 20.5
    assert narrow.deviation == pytest.approx(0.5**0.5)  # of the sample: divided by n - 1
    wide = table.entries[1][0].measured
    assert wide is not None and wide.deviation is None


def test_differences(table: Table) -> None:
    assert table.entries[0][1].difference == pytest.approx(22.5 - 12.0)
    gain = table.entries[1][2]
    # Of seed 0, which is the only one that both rows have.
    assert gain.measured is not None and gain.measured.mean == pytest.approx(24.5 - 22.0)
    assert gain.difference == pytest.approx(2.5 + 0.5)
    assert not table.entries[0][2].is_ours and table.entries[2][0].measured is None


def test_ranks_over_all_entries_of_a_metric(table: Table) -> None:
    ranks = [[entry.ranks for entry in row[:2]] for row in table.entries]
    # Published 12, 11.5, 11, 10; here 25, 24.5, 22.5, 20.5.
    assert ranks == [[(4, 4), (1, 3)], [(3, 1), (2, 2)], [None, None]]


def test_who_is_first_in_a_row(table: Table) -> None:
    assert [table.best_in_row(i, "test/psnr", ours=True) for i in range(3)] == [[1], [0], []]
    assert [table.best_in_row(i, "test/psnr", ours=False) for i in range(3)] == [[1], [1], []]


def test_numbers_that_print_alike_are_first_together(published: Published) -> None:
    text = to_markdown(make_table(published, [result("old", 8, 0, 20.004), result("new", 8, 0, 20.0)], "small"), "x")
    assert "| 4 | narrow | **20.00** | 10.00 | **20.00** | **12.00** |" in text
    assert "old PSNR in 1 of 1 rows (published: 0 of 2); new PSNR in 1 of 1 rows (published: 2 of 2)" in text


def test_two_results_of_a_seed_are_refused(published: Published) -> None:
    runs = [result("old", 8, 0, 20.0), result("old", 8, 1, 20.0), result("old", 8, 1, 21.0) | {"cell": "again"}]
    with pytest.raises(ConfigError, match="one result of seed 1 for the row 4, narrow, got old-8-1, again"):
        make_table(published, runs, "small")


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf")])
def test_a_mean_says_how_many_seeds_it_has(unknown: float | None, published: Published) -> None:
    runs = [result("old", 8, seed, psnr) for seed, psnr in enumerate((20.0, 22.0, unknown))]
    text = to_markdown(make_table(published, [*runs, result("new", 8, 0, unknown)], "small"), "x")
    assert "| 4 | narrow | 21.00 ± 1.41 (2 of 3 seeds) | 10.00 | – | **12.00** |" in text


def test_a_bar_in_a_label_does_not_end_the_cell(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED.replace("quoted", "'|x|'"))
    text = to_markdown(make_table(read_published(path), [], "small"), "x")
    assert "| 9 | \\|x\\| | – | 9.00 ± 1 |" in text


def test_lower_can_be_better(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED.replace("better: max", "better: min"))
    table = make_table(read_published(path), RESULTS, "small")
    assert table.entries[0][0].ranks == (1, 1)
    assert [table.best_in_row(i, "test/psnr", ours=True) for i in range(3)] == [[0], [1], []]


def test_equal_numbers_share_a_rank(published: Published) -> None:
    table = make_table(published, [result("old", 8, 0, 20.0), result("new", 8, 0, 20.0)], "small")
    assert [entry.ranks for entry in table.entries[0][:2]] == [(2, 1), (1, 1)]


def test_rows_say_what_is_different_here(table: Table) -> None:
    assert table.labels == [("4", "narrow"), ("8 (6 here)", "wide"), ("9", "quoted")]


def test_a_run_without_the_metric_is_not_called_not_run(published: Published) -> None:
    table = make_table(published, [result("old", 8, 0, None)], "small")
    assert table.entries[0][0].measured is None and table.entries[0][0].runs
    assert "| 4 | narrow | – | 10.00 | not run |" in to_markdown(table, "x")


def test_markdown(table: Table) -> None:
    found = to_markdown(table, "python reproduce.py table scale=small")
    assert found == GOLDEN.read_text(), f"if the new text is right: write it to {GOLDEN}\n{found}"


def test_times_on_different_numbers_of_threads_are_not_mixed(published: Published) -> None:
    runs = [result("old", 8, seed, 20.0) | {"step_time_s": time} for seed, time in enumerate((0.3, 0.1, 0.9, 0.2))]
    runs[0]["hardware"] = runs[0]["hardware"] | {"threads": 2}
    text = to_markdown(make_table(published, runs, "small"), "x")
    assert "| old | 0, 1, 2, 3 | 8,000 | 200 ms (1 thread), 300 ms (2 threads) | 1.00 GiB |" in text


def test_memory_of_different_devices_is_not_mixed(published: Published) -> None:
    runs = [result("old", 8, seed, 20.0) for seed in (0, 1)]
    runs[0] |= {"peak_memory_kind": "cuda_allocated", "peak_memory_bytes": 2**27}
    runs[1] |= {"peak_memory_kind": "process_resident"}
    assert "| 0.12 GiB (GPU), 1.00 GiB (process) |" in to_markdown(make_table(published, runs, "small"), "x")


def test_uncommitted_changes_are_told(published: Published) -> None:
    runs = [result("old", 8, 0, 20.0), result("old", 8, 1, 20.0) | {"git_commit": "fedcba9876543210-dirty"}]
    text = to_markdown(make_table(published, runs, "small"), "x")
    assert "Commit 0123456789ab; fedcba987654 with uncommitted changes. " in text


def test_markdown_without_any_run(published: Published) -> None:
    text = to_markdown(make_table(published, [], "small"), "python reproduce.py table")
    assert "| 4 | narrow | not run | 10.00 | not run | **12.00** | – | – |" in text
    assert "| 9 | quoted | – | 9.00 ± 1 | – | – | – | – |" in text
    assert "## Runs\n\nNot run." in text and "Commit" not in text
    assert "Scale `small`, `a=1`, compared with" in to_markdown(make_table(published, [], "small", ["a=1"]), "x")


def test_latex(table: Table) -> None:
    lines = to_latex(table).splitlines()
    assert lines[2] == r"\begin{tabular}{llrrr}"
    assert r"8 (6 here) & wide & 25.00 (11.00) & 24.50 (11.50) & +2.5 ($-$0.5) \\" in lines
    assert r"4 & narrow & 20.50 $\pm$ 0.71 (10.00) & 22.50 $\pm$ 0.71 (12.00) & -- (--) \\" in lines
    assert r"A \& B, Table 1" in lines[-2]
    assert escaped("a_b 5% ± c^2~") == r"a\_b 5\% $\pm$ c\^{}2\~{}"
    assert escaped("iUNet-16: -4.0e-07, ‖x − Φ⁻¹‖₁") == r"iUNet-16: $-$4.0e-07, $\|$x $-$ $\Phi$$^{-}$$^{1}$$\|$$_1$"
    assert "Scale small, lr=2; in brackets" in to_latex(make_table(table.published, [], "small", ["lr=2"]))


def test_the_figure_has_a_dot_per_number(table: Table) -> None:
    psnr, gain = draw(table).axes
    rings = [line for line in psnr.lines if line.get_markerfacecolor() == "white"]
    assert sorted(float(ring.get_xdata()[0]) for ring in rings) == [9.0, 10.0, 11.0, 11.5, 12.0]
    assert sorted(float(c.lines[0].get_xdata()[0]) for c in psnr.containers) == [20.5, 22.5, 24.5, 25.0]
    assert psnr.get_xlabel() == "PSNR (dB)" and gain.get_xlabel() == "gain"
    (legend,) = draw(table).legends
    names = {"old, here", "old, published", "new, here", "new, published", "here", "published"}
    assert {text.get_text() for text in legend.get_texts()} == names
    assert [label.get_text() for label in psnr.get_yticklabels()] == ["4, narrow", "8 (6 here), wide", "9, quoted"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "did you mean 'title'"),
        ({"columns": []}, r"expected a list of columns in .*, got \[\]"),
        ({"source": None}, "expected source in"),
        ({"columns": [{"name": "a"}]}, "expected metric or difference for column 'a'"),
        ({"columns": [{"name": "a", "difference": "b"}]}, "expected difference to name a column"),
        ({"columns": [{"name": "a", "metric": "b", "better": "up"}]}, "expected better to be max or min"),
        (
            {"columns": [{"name": "a", "metric": "b", "digit": 3}]},
            r"expected a key of columns\[0\].*did you mean 'digits'",
        ),
        ({"rows": [{"label": ["a"], "values": [1]}]}, "expected 2 labels and 3 values"),
        ({"rows": [{"label": ["a", "b"], "values": [1, 2, 3], "minus": "c"}]}, "expected minus to be the label"),
        ({"rows": [3]}, r"expected keys and values for rows\[0\]"),
        ({"here": {"depth": "x"}}, "expected each key of here"),
        (
            {"task": "reconstruction", "columns": [{"name": n, "metric": "test/pnsr"} for n in "abc"]},
            r"expected a metric of reconstruction or one of steps, .*got 'test/pnsr'; did you mean 'test/psnr'",
        ),
        ({"task": "painting"}, "expected task to be one of reconstruction, .* got 'painting'"),
    ],
)
def test_what_is_no_table_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {**yaml.safe_load(PUBLISHED), **change}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(ConfigError, match=message):
        read_published(path)


def test_a_column_takes_what_its_metric_says_and_may_say_otherwise(tmp_path: Path) -> None:
    columns = [{"name": "a", "metric": "test/psnr"}, {"name": "b", "metric": "test/ssim", "digits": 1, "better": None}]
    content = {
        **yaml.safe_load(PUBLISHED),
        "task": "reconstruction",
        "columns": [*columns, {"name": "c", "metric": "num_parameters"}],
    }
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(content))
    found = [(c.better, c.digits, c.unit) for c in read_published(tmp_path / "published.yaml").columns]
    assert found == [("max", 2, "dB"), (None, 1, ""), (None, 2, "")]


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"expected published numbers, got '.*published\.yaml': No such file"):
        read_published(tmp_path / "published.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "title:\tx\n\tsource: y",
        "!unknown [1]",
        "!!python/object/apply:os.getcwd []",
        "[" * 5000,
        "? [1]\n: 2",
        "[1]",
        "a: *b",
        PUBLISHED.replace("values: [10.0, 12.0, null]", "values: 3"),
        PUBLISHED.replace("values: [10.0, 12.0, null]", "values: [a, b, c]"),
        PUBLISHED.replace("digits: 2", "digits: two"),
        PUBLISHED.replace("head: [levels, width]", "head: 3"),
        PUBLISHED.replace("here: {levels: network.levels}", "here: 3"),
    ],
)
def test_a_damaged_file_of_published_numbers_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"expected .*published\.yaml"):
        read_published(path)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"cell": ',
        "[1]",
        "[" * 100_000,
        "\ud800",
        json.dumps({**RESULTS[0], "metrics": 3}),
        json.dumps({**RESULTS[0], "metrics": {"test/psnr": "high"}}),
        json.dumps({key: value for key, value in RESULTS[0].items() if key != "versions"}),
    ],
)
def test_a_damaged_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RESULTS[0]))
    (tmp_path / "b.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(FileError, match=r"expected the (result|summary) of a run, got '.*b\.json'"):
        load(tmp_path)


def test_a_run_is_matched_by_its_configuration() -> None:
    described = describe("iunet", {"network": {"depth": "deep", "levels": {"a": 1}}, "seed": 3})
    assert fits(described, {"model": "iunet", "network.depth": "deep", "network.levels.a": 1, "seed": 3})
    assert not fits(described, {"network.depth": "shallow"}) and not fits(described, {"network.width": None})
    assert fits(described, {})


def test_results_keep_their_provenance_and_no_places(tmp_path: Path) -> None:
    (cell,) = cells_of(sweep_of(write_program(tmp_path), x=[1.5]), tmp_path / "runs")
    Runner(iter([cell]), 1, cell_environment(1), poll_s=0.02).run()
    kept = result_of(cell)
    assert kept["metrics"] == cell.summary()["metrics"] and kept["config"] == {"x": 1.5}
    assert kept["digest"] == cell.digest == digest(["x=1.5"])
    assert kept["command"].endswith("trainer.py x=1.5") and kept["finished"].endswith("+00:00")
    assert "run_dir" not in kept and str(cell.folder) not in json.dumps(kept)
    store([cell], tmp_path / "results")
    assert load(tmp_path / "results") == load(tmp_path / "results", [cell]) == ([kept], [])
    other = dataclasses.replace(cell, identity=["x=2"])
    assert load(tmp_path / "results", [other]) == load(tmp_path / "results", []) == ([], ["x-1.5"])
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["x-1.5.json"]


def test_a_readme_gets_an_excerpt_between_its_comments(table: Table, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# A\n\n<!-- results/small -->\nold\n<!-- end of results -->\n\nMore.\n")
    assert not fill(readme, "medium", "x") and "old" in readme.read_text()
    excerpt = to_excerpt(table)
    assert fill(readme, "small", excerpt) and fill(readme, "small", excerpt)
    assert readme.read_text() == f"# A\n\n<!-- results/small -->\n{excerpt}<!-- end of results -->\n\nMore.\n"
    assert all(part in GOLDEN.read_text() for part in excerpt.split("\n\n"))


def test_a_table_is_written(published: Published, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    for i, one in enumerate(RESULTS):
        (folder / f"{i}.json").write_text(json.dumps(one))
    plan = Plan("table", sweep_of("train.py", scale=["small"]), (), "small", ())
    assert render(published, folder, plan) == []
    assert (folder / "table.md").read_text() == GOLDEN.read_text()
    assert (folder / "table.tex").read_text().startswith("\\begin{table}")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [
        (0.854, 2, False, "0.85"),
        (-1.6, 1, True, "-1.6"),
        (0.0, 1, True, "+0.0"),
        (4.84e-7, 2, False, "4.8e-07"),
        (0.004, 2, False, "4.0e-03"),
        (0.005, 2, False, "0.01"),
        (-0.0, 2, False, "0.00"),
        (1e-5, 2, True, "+1.0e-05"),
    ],
)
def test_numbers(value: float, digits: int, sign: bool, text: str) -> None:
    assert decimal(value, digits, sign=sign) == text


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (3.816, 0.0021, "3.82 ± 0.002"),
        (3.816, 0.001, "3.82 ± 0.001"),
        (3.816, 0.0, "3.82 ± 0.00"),
        (3.816, 5.1e-6, "3.82 ± 0.000005"),
        (3.6e-7, 2.0e-8, "3.6e-07 ± 2.0e-08"),
        (3.816, 0.21, "3.82 ± 0.21"),
    ],
)
def test_a_deviation_is_written_as_its_mean(mean: float, deviation: float, text: str) -> None:
    assert mean_text(Measured(mean, deviation, 3), 2) == text


def test_a_column_without_published_numbers_is_one_column(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED.replace("-0.5]", "null]").replace(", null]", ", null]"))
    text = to_markdown(make_table(read_published(path), RESULTS, "small"), "x")
    assert "| new PSNR (dB), here | published | gain |\n" in text
