"""Rebuild a paper's table: ``python reproduce.py iunet_table1 scale=small --jobs 2``.

Runs those of ``experiments/<key>/sweep.yaml`` that have no finished folder below ``outputs/reproduce/``, and writes our
table with the published numbers to ``experiments/<key>/results/<scale>/``. Other values that can change a result become
part of that name: ``medium_trainer-gpu``. You can stop it at any time; the same command continues. A committed result
is no run folder: a fresh checkout runs everything, and replaces these results, the table and the README's excerpt.

    key=value           values of the sweep's parameters (scale=medium seed=0,1); arguments for every run (trainer=gpu)
    --jobs 1            number of parallel runs; they share the cores
    --fail-fast         stop when a run fails
    --sweep search      another sweep file of the folder
    --count 20          number of trials of a random or Bayesian search
    --runs <folder> ... folders with finished runs to include
    --dry-run           print the state and command of each run; run and write nothing (grids only)
    --render            write the table, or the ranking of a search, from the existing results
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from src.sweeps.plan import EXPERIMENTS, adopt, finished_elsewhere, make_plan, table_keys
from src.utils.command_line import parse, run_command_line
from src.utils.errors import ConfigError

if TYPE_CHECKING:
    from src.sweeps.cell import Cell
    from src.sweeps.plan import Plan
    from src.sweeps.runner import Attempt
    from src.tables.published import Published

SHOWN_LOG_LINES, SHOWN_TRIALS = 12, 10
# The sweep file of the table; other files are searches and studies.
TABLE_SWEEP = "sweep"


@dataclass(frozen=True)
class Options:
    """Options of reproduce.py; the text above explains them."""

    jobs: int = 1
    fail_fast: bool = False
    sweep: str = TABLE_SWEEP
    count: int | None = None
    runs: list[Path] = field(default_factory=list)
    dry_run: bool = False
    render: bool = False


def reproduce(arguments: list[str]) -> int:
    """Run the command line and return the exit code.

    Raises:
        ConfigError: for a table, sweep or override that does not exist.
    """
    options, others = parse(Options, arguments)
    key, *overrides = others or [""]
    plan = make_plan(EXPERIMENTS, key, overrides, options.sweep)
    if not Path(plan.sweep.program).is_file():
        raise ConfigError(f"expected a working directory with {plan.sweep.program}, got {Path.cwd()}")
    return _grid(plan, options) if plan.sweep.method == "grid" else _search(plan, options)


def _grid(plan: Plan, options: Options) -> int:
    from src.sweeps.runner import State
    from src.tables.published import read_published
    from src.tables.results import store
    from src.tables.study import earlier_rows, num_commits, write_study
    from src.tables.unmatched import planned, runs_without_row

    published = read_published(EXPERIMENTS / plan.key / "published.yaml")
    cells = plan.cells()
    found = finished_elsewhere(cells, options.runs)
    results = EXPERIMENTS / plan.key / "results" / plan.variant
    table = results if options.sweep == TABLE_SWEEP else None
    if table is not None and not options.render:
        for line in runs_without_row(published, planned(cells)):
            print(f"note: {line}")
    if options.dry_run:
        return _print_commands(cells, table, {cell.name: run.path for cell, run in found})
    for cell, run in found:
        adopt(run, cell.run)
        print(f"{cell.name}: taken from {run.path}")
    study = results / f"{options.sweep}.csv"
    if table is None:
        earlier_rows(plan.sweep, study)  # before hours of runs, whose rows would not fit
    attempts: list[Attempt] = []

    def keep(attempt: Attempt) -> None:
        if table is not None and attempt.state is State.FINISHED:
            store([attempt.cell], table, per_sample=published.per_sample)

    try:
        if not options.render:
            attempts = _run(iter(cells), len(cells), options, keep)
    finally:
        # After Ctrl-C as well: the table marks the missing runs.
        if table is not None:
            store(cells, table, per_sample=published.per_sample)
            _render(published, table, plan, cells)
        else:
            write_study(plan.sweep, cells, study)
            print(f"all runs: {study.relative_to(Path.cwd())}")
            if (number := num_commits(study)) > 1:
                print(f"note: its runs are of {number} commits; delete it, and run again, to compare those of one")
    return _report(attempts, "the same command tries them again")


def _render(published: Published, table: Path, plan: Plan, cells: list[Cell]) -> None:
    """Write the table from the results of all cells, not only of those that the command selects; name the others."""
    from src.tables.render import render
    from src.tables.results import describe, load, stored_names
    from src.tables.unmatched import runs_without_row

    known = [*cells, *plan.other_cells(stored_names(table))]
    left_out = render(published, table, plan, known)
    print(f"table: {table.relative_to(Path.cwd())}/table.md")
    names = {cell.name for cell in known}
    changed, others = ([name for name in left_out if (name in names) == expected] for expected in (True, False))
    if changed:
        print(f"left out {', '.join(changed)}: measured with a configuration that has changed since")
    if others:
        print(f"left out {', '.join(others)}: of no run of the sweep file or of this command")
    shown = [run for run in load(table)[0] if run["cell"] not in left_out]
    for line in runs_without_row(published, {run["cell"]: describe(run["model"], run["config"]) for run in shown}):
        print(f"note: {line}")


def _search(plan: Plan, options: Options) -> int:
    from src.sweeps.search import Search

    if options.dry_run:
        raise ConfigError("expected a grid for --dry-run, got a search, whose trials depend on earlier results")
    folder = plan.parent() / plan.variant_of(options.sweep)
    search = Search(plan.sweep, options.count, list(plan.overrides), plan.identify, folder)
    attempts = [] if options.render else _run(search.cells(), search.count, options, search.tell)
    path = search.write_ranking()
    for value, parameters in search.ranking()[:SHOWN_TRIALS]:
        print(f"{search.metric.name} {value:.6g}: {' '.join(f'{k}={parameters[k]}' for k in plan.sweep.varied)}")
    print(f"all trials: {path}")
    return _report(attempts, "they count as trials and are not tried again; a larger --count adds trials")


def _run(cells: Iterator[Cell], total: int, options: Options, on_change: Callable[[Attempt], None]) -> list[Attempt]:
    from src.sweeps.process import cell_environment
    from src.sweeps.progress import progress
    from src.sweeps.runner import Runner

    with progress(total, options.jobs) as shown:

        def changed(attempt: Attempt) -> None:
            on_change(attempt)
            shown.changed(attempt)

        environment = cell_environment(options.jobs)
        return Runner(
            cells, options.jobs, environment, fail_fast=options.fail_fast, on_change=changed, on_tick=shown.tick
        ).run()


def _print_commands(cells: list[Cell], table: Path | None, found: dict[str, Path]) -> int:
    """Print the state or the command of each cell; ``found`` has the finished runs elsewhere by the cells' names."""
    from src.sweeps.command import for_people
    from src.tables.results import load

    stored = {result["cell"] for result in load(table, cells)[0]} if table is not None else set()
    for cell in cells:
        if cell.is_finished():
            print(f"# {cell.name}: finished")
            continue
        if cell.name in found:
            print(f"# {cell.name}: would be taken from {found[cell.name]}")
            continue
        if table is not None and cell.name in stored:
            place = f"{table.relative_to(Path.cwd())}/{cell.name}.json"
            print(f"# {cell.name}: replaces {place}, a result of today's configuration")
        print(for_people(cell.resume_command() if cell.can_be_resumed() else cell.command()))
    return 0


def _report(attempts: list[Attempt], advice: str) -> int:
    """Print the failed runs with the ends of their logs and what to do, and return the exit code."""
    from src.sweeps.process import last_lines
    from src.sweeps.runner import State

    failed = [attempt for attempt in attempts if attempt.state is State.FAILED]
    for attempt in failed:
        print(
            f"\n{attempt.cell.name} failed with exit code {attempt.exit_code}; {attempt.cell.log} ends:",
            file=sys.stderr,
        )
        print("\n".join(last_lines(attempt.cell.log, SHOWN_LOG_LINES)), file=sys.stderr)
    if failed:
        print(f"\n{len(failed)} of {len(attempts)} runs failed; {advice}", file=sys.stderr)
    return 1 if failed else 0


def _help() -> str:
    return f"{__doc__}\nTables: {', '.join(table_keys(EXPERIMENTS))}"


def main() -> None:
    """Run the command line."""
    advice = "; run the same command to continue"
    run_command_line(_help, lambda arguments: sys.exit(reproduce(arguments)), advice=advice)


if __name__ == "__main__":
    main()
