"""reproduce.py from end to end, with a quick program instead of train.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import reproduce
from src.sweeps import plan
from tests.marks import slow
from tests.sweeps.programs import starts, write_program

ROOT = Path(reproduce.__file__).parent
SWEEP = """
program: trainer.py
method: grid
parameters:
  x: {values: [1, 2]}
  seed: {values: [0, 1]}
  steps: {value: 1}
  fail: {value: 0}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""
SEARCH = """
program: trainer.py
method: bayes
metric: {name: loss, goal: minimize}
run_cap: 3
parameters:
  x: {min: 0.0, max: 1.0}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""
PUBLISHED = """
title: A table
source: A paper
setting: a setting
head: [x]
columns: [{name: Loss, metric: loss, better: min, digits: 2}]
rows:
  - {label: [1], match: {x: 1.0}, values: [0.5]}
  - {label: [2], match: {x: 2.0}, values: [2.5]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_program(tmp_path)
    table = tmp_path / "experiments" / "table"
    table.mkdir(parents=True)
    for name, text in {"sweep": SWEEP, "search": SEARCH, "published": PUBLISHED}.items():
        (table / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "EXPERIMENTS", tmp_path / "experiments")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        reproduce.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_table_from_one_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, "table", "--jobs", "2") == 0
    results = folder / "experiments" / "table" / "results" / "default"
    assert "(4 of 4 done)" in capsys.readouterr().out
    assert sorted(path.name for path in results.iterdir()) == [
        "figure.png",
        *(f"seed-{seed}_x-{x}.json" for seed in (0, 1) for x in (1, 2)),
        "table.md",
        "table.tex",
    ]
    assert "| 1 | **" not in (results / "table.md").read_text()
    assert "| 2 | 2.89 ± 0.00 | 2.50 |" in (results / "table.md").read_text()

    assert call(monkeypatch, "table") == 0
    assert capsys.readouterr().out.count("finished before") == 4
    assert len(starts(folder / "outputs" / "reproduce" / "table" / "default")) == 4


def test_a_failing_run_is_reported_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert call(monkeypatch, "table", "fail=1", "x=1", "seed=0,1") == 1
    captured = capsys.readouterr()
    assert captured.out.count(": failed") == 2
    assert "seed-1_x-1 failed with exit code 1; outputs/reproduce/table/default/seed-1_x-1_" in captured.err
    assert "about to fail\nexpected a better value, got fail=1\n" in captured.err
    assert "2 of 2 runs failed; the same command tries them again" in captured.err
    results = folder / "experiments" / "table" / "results"
    assert [path.name for path in results.iterdir()] == ["default_fail-1"]
    assert "| 1 | not run | 0.50 |" in (results / "default_fail-1" / "table.md").read_text()


def test_fail_fast(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, "table", "fail=1", "--fail-fast") == 1
    assert "1 of 1 runs failed" in capsys.readouterr().err


def test_a_dry_run_prints_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call(monkeypatch, "table", "x=1")
    capsys.readouterr()
    assert call(monkeypatch, "table", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# seed-0_x-1: finished"
    assert lines[1].startswith(
        "python trainer.py fail=0 seed=0 steps=1 x=2 run_dir=outputs/reproduce/table/default/seed-0_x-2_"
    )
    assert len(lines) == 4 and len(starts(folder / "outputs" / "reproduce" / "table" / "default")) == 2


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_runs_without_a_row_are_named_before_and_after(
    options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = folder / "experiments" / "table" / "published.yaml"
    path.write_text(PUBLISHED.replace("{x: 2.0}", "{y: 2.0}"))
    assert call(monkeypatch, "table", "seed=0", *options) == 0
    note = "note: seed-0_x-2: in no row of published.yaml; the nearest one asks for "
    assert capsys.readouterr().out.count(note) == (1 if options else 2)


def test_a_dry_run_names_the_results_that_its_runs_would_replace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call(monkeypatch, "table", "x=1", "seed=0")
    for path in (folder / "outputs").rglob("summary.json"):  # as in a fresh checkout
        path.unlink()
    capsys.readouterr()
    assert call(monkeypatch, "table", "--dry-run", "x=1") == 0
    lines = capsys.readouterr().out.splitlines()
    place = "experiments/table/results/default/seed-0_x-1.json"
    assert lines[0] == f"# seed-0_x-1: replaces {place}, a result of today's configuration"
    assert [line.startswith("python trainer.py ") for line in lines] == [False, True, True]


def test_a_dry_run_takes_no_finished_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    call(monkeypatch, "table", "x=1", "seed=0")
    (folder / "outputs").rename(folder / "elsewhere")
    monkeypatch.setattr(plan, "agree", lambda stored, today: True)  # this program's runs have no configuration of ours
    capsys.readouterr()
    assert call(monkeypatch, "table", "x=1", "seed=0", "--dry-run", "--runs", "elsewhere") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("# seed-0_x-1: would be taken from elsewhere/reproduce/table/default/seed-0_x-1_")
    assert not (folder / "outputs").exists()
    assert call(monkeypatch, "table", "x=1", "seed=0", "--runs", "elsewhere") == 0
    assert "seed-0_x-1: taken from elsewhere/reproduce/" in capsys.readouterr().out


def test_rendering_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    results = folder / "experiments" / "table" / "results" / "default"
    call(monkeypatch, "table", "x=1")
    for path in results.glob("*.json"):
        content = json.loads(path.read_text())
        # As in a fresh checkout, where only the committed results exist.
        path.write_text(json.dumps({**content, "metrics": {"loss": 0.125}}))
    for path in (folder / "outputs").rglob("summary.json"):
        path.unlink()
    assert call(monkeypatch, "table", "--render") == 0
    assert "without" not in capsys.readouterr().out
    assert "| 1 | 0.12 ± 0.00 | 0.50 |" in (results / "table.md").read_text()
    assert len(starts(folder / "outputs" / "reproduce" / "table" / "default")) == 2

    sweep = folder / "experiments" / "table" / "sweep.yaml"
    sweep.write_text(SWEEP.replace("steps: {value: 1}", "steps: {value: 2}"))
    assert call(monkeypatch, "table", "--render") == 0
    assert "left out seed-0_x-1, seed-1_x-1: measured with" in capsys.readouterr().out
    assert "| 1 | not run | 0.50 |" in (results / "table.md").read_text()


def test_a_part_of_the_grid_takes_no_outdated_result_of_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    results = folder / "experiments" / "table" / "results" / "default"
    call(monkeypatch, "table")
    call(monkeypatch, "table", "x=2", "--render")
    assert "left out" not in capsys.readouterr().out
    assert "| 1 | 0.49 ± 0.00 |" in (results / "table.md").read_text()

    sweep = folder / "experiments" / "table" / "sweep.yaml"
    sweep.write_text(SWEEP.replace("steps: {value: 1}", "steps: {value: 2}"))
    call(monkeypatch, "table", "x=2", "seed=0")
    assert "left out seed-0_x-1, seed-1_x-1, seed-1_x-2: measured with" in capsys.readouterr().out
    assert "| 1 | not run | 0.50 |\n| 2 | 2.89 | 2.50 |" in (results / "table.md").read_text()

    # The cells have other names now.
    sweep.write_text(SWEEP.replace("fail: {value: 0}", "fail: {values: [0]}"))
    call(monkeypatch, "table", "seed=0", "x=1")
    output = capsys.readouterr().out
    assert "left out seed-0_x-1, seed-0_x-2, seed-1_x-1, seed-1_x-2: of no run of the sweep file" in output
    assert "| 1 | 0.49 | 0.50 |\n| 2 | not run | 2.50 |" in (results / "table.md").read_text()


def test_a_search_continues(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert call(monkeypatch, "table", "--sweep", "search") == 0
    assert capsys.readouterr().out.count("\nloss ") == 3
    assert call(monkeypatch, "table", "--sweep", "search", "--count", "5", "--jobs", "2") == 0
    output = capsys.readouterr().out
    values = [float(line.split()[1].rstrip(":")) for line in output.splitlines() if line.startswith("loss ")]
    assert len(values) == 5 and values == sorted(values)
    trials = folder / "outputs" / "reproduce" / "table" / "default" / "search"
    assert len(starts(trials)) == 5 and len((trials / "trials.csv").read_text().splitlines()) == 6
    assert not (folder / "experiments" / "table" / "results").exists()


def test_a_failed_trial_counts(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    search = ["table", "--sweep", "search", "--count"]
    assert call(monkeypatch, *search, "1", "fail=1") == 1
    assert (
        "1 of 1 runs failed; they count as trials and are not tried again; a larger --count" in capsys.readouterr().err
    )
    trials = folder / "outputs" / "reproduce" / "table" / "default" / "search_fail-1"
    for count, expected in (("1", 1), ("2", 2)):
        call(monkeypatch, *search, count, "fail=1")
        assert len(starts(trials)) == expected


def test_a_search_of_a_part_of_the_space_is_another_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for argument in ("x=0.25", "x=0.75"):
        assert call(monkeypatch, "table", "--sweep", "search", "--count", "1", argument) == 0
        trials = folder / "outputs" / "reproduce" / "table" / "default" / f"search_{argument.replace('=', '-')}"
        assert (trials / "trials.csv").read_text().splitlines() == [
            "loss,x",
            f"{(float(argument[2:]) - 0.3) ** 2},{argument[2:]}",
        ]


def test_many_overrides_make_a_valid_file_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [f"section.with_a_long_name.key_{number}=value" for number in range(20)]
    for last in ("0", "1"):
        assert call(monkeypatch, "table", "x=1", "seed=0", *overrides, f"other={last}") == 0
        assert call(monkeypatch, "table", "--sweep", "search", "--count", "1", *overrides, f"other={last}") == 0
    results = folder / "experiments" / "table" / "results"
    assert len([path for path in results.glob("*/table.md") if "0.49" in path.read_text()]) == 2
    assert len(list(folder.rglob("search.journal"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel"], "expected a table, got 'tabel'; did you mean 'table'"),
        (["table", "--jobs", "0"], "expected jobs to be a positive integer, got '0'"),
        (["table", "x"], "expected key=value, got 'x'"),
        (["table", "--sweep", "search", "--dry-run"], "expected a grid for --dry-run, got a search"),
        (["table", "--runs", "nowhere"], "expected a folder of runs, got 'nowhere'"),
        (["table", "--sweep", "search", "--count", "0"], "expected count to be a positive integer, got '0'"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_another_working_directory_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(folder / "experiments")
    assert call(monkeypatch, "table") == 2
    assert "expected a working directory with trainer.py, got" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGINT, slow(signal.SIGTERM)])
def test_a_signal_saves_and_renders_and_the_same_command_resumes(signum: signal.Signals, folder: Path) -> None:
    program = "import sys, reproduce; from pathlib import Path; reproduce.EXPERIMENTS = Path('experiments').resolve();"
    program += "sys.argv = ['reproduce.py', 'table', 'steps=40', '--jobs', '2']; reproduce.main()"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]
    runs = folder / "outputs" / "reproduce" / "table" / "default"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(list(runs.glob("*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signum)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert f"ended by {signum.name}; run the same command to continue" in errors
    assert output.count(": stopped after") == 2 and "table.md" in output
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    kinds = [kind for _, kind in starts(runs)]
    assert kinds.count("new") == 4 and kinds.count("resumed") == 2


def test_help_lists_the_tables_and_needs_no_torch() -> None:
    probe = (
        "import sys, reproduce; sys.argv = ['reproduce.py', '--help']\ntry: reproduce.main()\nexcept SystemExit: pass\n"
    )
    probe += "sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0 and "iunet_table1" in found.stdout and "--fail-fast" in found.stdout
