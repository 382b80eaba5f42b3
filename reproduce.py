"""Rebuild a paper's table: ``python reproduce.py iunet_table1 scale=small --jobs 2``.

Runs what is missing of ``experiments/<key>/sweep.yaml`` and writes the table beside the published one into
``experiments/<key>/results/<scale>/``. Stop it at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from src.sweeps.plan import EXPERIMENTS, adopt, make_plan, table_keys
from src.utils.errors import ConfigError, full_traceback_wanted, user_errors

if TYPE_CHECKING:
    from src.sweeps.cell import Cell
    from src.sweeps.plan import Plan
    from src.sweeps.runner import Entry

SHOWN_LOG_LINES, SHOWN_TRIALS = 12, 10
# The sweep file that makes the table; others are searches and studies.
TABLE_SWEEP = "sweep"


def main() -> None:
    """Run the command line."""
    arguments = _parser().parse_intermixed_args()
    with user_errors(full_traceback_wanted(arguments.overrides)):
        try:
            sys.exit(reproduce(arguments))
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on", file=sys.stderr)
            sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", help=f"folder of the table: {', '.join(table_keys(EXPERIMENTS))}")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="values of the sweep's parameters (scale=medium, seed=0,1), and arguments for every run (trainer=gpu)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; the cores are shared out among them")
    parser.add_argument("--fail-fast", action="store_true", help="stop when a run fails")
    parser.add_argument("--sweep", default=TABLE_SWEEP, help="another sweep file of the folder, such as search")
    parser.add_argument("--count", type=int, help="number of trials of a random or Bayesian search")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders whose finished runs count as well")
    parser.add_argument("--dry-run", action="store_true", help="print each run's state and command, and run nothing")
    parser.add_argument("--render", action="store_true", help="write the table from the results there are")
    return parser


def reproduce(arguments: argparse.Namespace) -> int:
    """Do what the command line asks; return the exit code.

    Raises:
        ConfigError: for a table, sweep or override that does not exist.
    """
    if arguments.jobs < 1:
        raise ConfigError(f"expected --jobs to be positive, got {arguments.jobs}")
    plan = make_plan(EXPERIMENTS, arguments.key, arguments.overrides, arguments.sweep)
    if not Path(plan.sweep.program).is_file():
        raise ConfigError(f"expected to run where {plan.sweep.program} is, got {Path.cwd()}")
    if plan.sweep.method != "grid":
        return _search(plan, arguments)
    return _grid(plan, arguments)


def _grid(plan: Plan, arguments: argparse.Namespace) -> int:
    from src.tables.published import read_published
    from src.tables.render import render
    from src.tables.results import store

    published = read_published(EXPERIMENTS / plan.key / "published.yaml")
    cells = plan.cells()
    for cell in adopt(cells, arguments.runs):
        print(f"{cell.name}: taken from {cell.summary()['run_dir']}")
    if arguments.dry_run:
        return _print_commands(cells)
    table = EXPERIMENTS / plan.key / "results" / plan.variant if arguments.sweep == TABLE_SWEEP else None
    entries: list[Entry] = []
    try:
        if not arguments.render:
            entries = _run(iter(cells), len(cells), arguments, lambda entry: _keep(entry, table))
    finally:
        # After Ctrl-C as well: what is not run yet says so.
        if table is not None:
            store(cells, table)
            outdated = render(published, table, plan, cells)
            print(f"table: {table.relative_to(Path.cwd())}/table.md")
            if outdated:
                print(f"without {', '.join(outdated)}: measured under another configuration than today's")
    return _report(entries)


def _keep(entry: Entry, table: Path | None) -> None:
    from src.sweeps.runner import State
    from src.tables.results import store

    if table is not None and entry.state is State.FINISHED:
        store([entry.cell], table)


def _search(plan: Plan, arguments: argparse.Namespace) -> int:
    from src.sweeps.search import Search

    folder = plan.parent() / "_".join([arguments.sweep, *plan.variant.split("_")[1:]])
    search = Search(plan.sweep, arguments.count, list(plan.overrides), plan.identify, folder)
    entries = _run(search.cells(), search.count, arguments, search.tell)
    path = search.write_ranking()
    for value, parameters in search.ranking()[:SHOWN_TRIALS]:
        print(f"{search.metric.name} {value:.6g}: {' '.join(f'{k}={parameters[k]}' for k in plan.sweep.varied)}")
    print(f"all trials: {path}")
    return _report(entries)


def _run(
    cells: Iterator[Cell], total: int, arguments: argparse.Namespace, on_change: Callable[[Entry], None]
) -> list[Entry]:
    from src.sweeps.process import cell_environment
    from src.sweeps.progress import progress
    from src.sweeps.runner import Runner

    with progress(total, arguments.jobs) as shown:

        def changed(entry: Entry) -> None:
            on_change(entry)
            shown.changed(entry)

        runner = Runner(
            cells,
            arguments.jobs,
            cell_environment(arguments.jobs),
            fail_fast=arguments.fail_fast,
            on_change=changed,
            on_tick=shown.tick,
        )
        return runner.run()


def _print_commands(cells: list[Cell]) -> int:
    from src.sweeps.command import for_people

    for cell in cells:
        command = cell.resume_command() if cell.can_be_resumed() else cell.command()
        print(f"# {cell.name}: finished" if cell.is_finished() else for_people(command))
    return 0


def _report(entries: list[Entry]) -> int:
    """Print what failed and where to read more; return the exit code."""
    from src.sweeps.process import last_lines
    from src.sweeps.runner import State

    failed = [entry for entry in entries if entry.state is State.FAILED]
    for entry in failed:
        print(f"\n{entry.cell.name} failed with exit code {entry.exit_code}; {entry.cell.log} ends:", file=sys.stderr)
        print("\n".join(last_lines(entry.cell.log, SHOWN_LOG_LINES)), file=sys.stderr)
    if failed:
        print(f"\n{len(failed)} of {len(entries)} runs failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
