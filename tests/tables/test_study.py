"""The file of a grid beside a table's own, and the learning rates that follow from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from src.sweeps.process import cell_environment
from src.sweeps.runner import Runner
from src.sweeps.sweep import Objective, Sweep
from src.tables.study import best_rates, num_commits, read_study, write_study
from src.utils.errors import ConfigError
from src.utils.reading import FileError
from tests.sweeps.programs import cells_of, sweep_of, write_program

HEAD = "val/psnr,model,network.blowup,task.optimizer.lr,seed,git_commit,digest\n"
RATES = Sweep(
    *("train.py", "grid", {}, (), Objective("val/psnr", "maximize"), None),
    varied=("model", "network.blowup", "task.optimizer.lr"),
)


def study(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "learning_rates.csv"
    path.write_text(HEAD + "".join(f"{row},0,abc,{i}\n" for i, row in enumerate(rows)))
    return path


def test_finished_runs_are_written_and_those_of_other_cells_stay(tmp_path: Path) -> None:
    program = write_program(tmp_path)
    sweep = dataclasses.replace(sweep_of(program, x=[0.25, 1.5], y=["b"]), metric=Objective("loss"))
    path, cells = tmp_path / "study.csv", cells_of(sweep, tmp_path / "runs")
    write_study(sweep, cells, path)
    assert not path.exists()
    for few in (cells[1:], cells[:1]):
        Runner(iter(few), 1, cell_environment(1), poll_s=0.02).run()
        write_study(sweep, few, path)
    rows = read_study(path)
    assert [(row["x"], row["y"], row["loss"], row["seed"]) for row in rows] == [
        ("0.25", "b", "0.0025", "0"),
        ("1.5", "b", "1.44", "0"),
    ]
    assert [row["digest"] for row in rows] == [cell.digest for cell in cells]
    before = path.read_bytes()
    write_study(sweep, cells, path)
    assert path.read_bytes() == before


def test_the_best_rate_is_that_of_the_mean_over_the_cells(tmp_path: Path) -> None:
    rows = ["20,unet,4,0.01", "10,unet,8,0.01", "14,unet,4,0.1", "18,unet,8,0.1", "9,iunet,4,0.01", "8,iunet,4,0.1"]
    assert best_rates(study(tmp_path, *rows), RATES) == {"unet": 0.1, "iunet": 0.01}
    lowest = dataclasses.replace(RATES, metric=Objective("val/psnr", "minimize"))
    assert best_rates(study(tmp_path, *rows), lowest) == {"unet": 0.01, "iunet": 0.1}


def test_commits_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "learning_rates.csv"
    assert num_commits(path) == 0
    path.write_text(HEAD + "20,unet,4,0.01,0,b,a\n30,unet,4,0.1,0,c,b\n24,unet,4,0.2,0,c,d\n")
    assert num_commits(path) == 2


def test_rates_with_a_missing_or_diverged_run_are_not_the_best(tmp_path: Path) -> None:
    rows = ["20,unet,4,0.01", "20,unet,8,0.01", "99,unet,4,0.1", "99,unet,4,0.2", ",unet,8,0.2"]
    assert best_rates(study(tmp_path, *rows), RATES) == {"unet": 0.01}


def test_a_rate_that_was_run_twice_has_no_advantage(tmp_path: Path) -> None:
    # Of another digest, and with another seed.
    path = study(tmp_path, "20,unet,4,0.01", "19,unet,4,0.01", "25,unet,4,0.1")
    assert best_rates(path, RATES) == {"unet": 0.1}
    path.write_text(HEAD + "20,unet,4,0.01,0,c,a\n30,unet,4,0.01,1,c,b\n24,unet,4,0.1,0,c,d\n")
    assert best_rates(path, RATES) == {"unet": 0.01}
    path.write_text(HEAD + "20,unet,4,0.01,0,c,a\n20,unet,4,0.01,1,c,b\n24,unet,4,0.1,0,c,d\n")
    assert best_rates(path, RATES) == {"unet": 0.1}


def test_rates_of_different_combinations_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a rate of unet that was run in all 2 combinations, got none"):
        best_rates(study(tmp_path, "20,unet,4,0.01", "25,unet,8,0.1"), RATES)
    with pytest.raises(ConfigError, match="expected a rate of unet with the metric in all its runs, got none"):
        best_rates(study(tmp_path, ",unet,4,0.01", ",unet,4,0.1"), RATES)


def test_a_cell_that_ran_again_has_one_row(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    sweep = dataclasses.replace(sweep_of(write_program(tmp_path), x=[0.25]), metric=Objective("loss"))
    path.write_text("loss,x,seed,git_commit,digest\n9,0.25,0,,old\n8,0.5,0,,old\n7,0.25,1,,old\n")
    cells = cells_of(sweep, tmp_path / "runs")
    Runner(iter(cells), 1, cell_environment(1), poll_s=0.02).run()
    write_study(sweep, cells, path)
    found = [(row["x"], row["seed"], row["loss"], row["digest"]) for row in read_study(path)]
    assert sorted(found) == [
        ("0.25", "0", "0.0025", cells[0].digest),
        ("0.25", "1", "7", "old"),
        ("0.5", "0", "8", "old"),
    ]


def test_a_study_of_other_parameters_is_named(tmp_path: Path) -> None:
    path = study(tmp_path, "20,unet,4,0.01")
    sweep = dataclasses.replace(RATES, varied=("model", "network.depth", "task.optimizer.lr"))
    expected = "expected the columns val/psnr, model, network.depth, task.optimizer.lr, seed, git_commit, digest"
    with pytest.raises(
        FileError, match=rf"study of today's sweep file .*: {expected}, got val/psnr, model, network.blow"
    ):
        write_study(sweep, [], path)
    with pytest.raises(FileError, match=r"it has no column network\.depth"):
        best_rates(path, sweep)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a sweep over model and task\.optimizer\.lr .*, got x"):
        best_rates(tmp_path / "none.csv", sweep_of("train.py", x=[1]))
    with pytest.raises(FileError, match=r"expected a study, got '.*none\.csv': No such file"):
        best_rates(tmp_path / "none.csv", RATES)
    with pytest.raises(FileError, match=r"expected a study, got '.*': rows differ in length"):
        read_study(study(tmp_path, "20,unet,4"))
    with pytest.raises(FileError, match=r"expected a study of learning rates, got '.*could not convert"):
        best_rates(study(tmp_path, "high,unet,4,0.1"), RATES)
