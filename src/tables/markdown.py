"""Write a table of the published numbers and ours as Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from src.tables.numbers import NONE, NOT_RUN, difference_text, heading, mean_text, measured_text, published_text
from src.tables.paired import comparisons
from src.tables.table import Table


def to_markdown(table: Table, command: str) -> str:
    """Return the whole page, with the command that makes it."""
    parts = [
        f"# {table.published.title}",
        f"Scale {', '.join(f'`{word}`' for word in (table.scale, *table.changes))}, compared with "
        f"{table.published.source}. Published setting: {table.published.setting}.",
        _beside(table),
        _first_in_rows(table),
        "## What is resolved" if _resolved(table) else "",
        _resolved(table),
        _differences(table),
        "## What differs from the paper",
        _differs(table),
        "## Runs",
        _runs(table),
        f"```bash\n{command}\n```",
        _provenance(table.results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_excerpt(table: Table) -> str:
    """Return what a README shows: the numbers, which differences are resolved, the runs and where they come from."""
    parts = [_beside(table), _resolved(table), _runs(table), _provenance(table.results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _beside(table: Table) -> str:
    """The published table with our numbers; the best of each row is bold, and a line says so."""
    head = [*table.published.head]
    rows = [[*label] for label in table.labels]
    for j, column in enumerate(table.published.columns):
        is_published = any(row[j].published is not None for row in table.entries)
        head += [f"{heading(column)}, here", "published"] if is_published else [heading(column)]
        for i, cells in enumerate(rows):
            entry = table.entries[i][j]
            cells.append(_bold(measured_text(entry, column), j in _best(table, i, j, ours=True)))
            if is_published:
                theirs = published_text(entry, column, table.published.rows[i].tolerance)
                cells.append(_bold(theirs, j in _best(table, i, j, ours=False)))
    grid = _grid(head, rows)
    note = "Bold: the best of a row by a metric, among our numbers and among the published ones."
    return f"{grid}\n\n{note}" if "**" in grid else grid


def _best(table: Table, row: int, column: int, *, ours: bool) -> list[int]:
    spec = table.published.columns[column]
    return table.best_in_row(row, spec.metric, ours) if spec.metric is not None and spec.better else []


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _first_in_rows(table: Table) -> str:
    """For metrics with several columns: how often each column is the best of its row."""
    lines = []
    for metric in table.ranked_metrics():
        columns = table.columns_of(metric)
        bests = {
            ours: [table.best_in_row(i, metric, ours) for i in range(len(table.entries))] for ours in (True, False)
        }
        firsts = {ours: [best for best in found if best] for ours, found in bests.items()}
        if len(columns) < 2 or not firsts[True]:
            continue
        counts = [
            f"{table.published.columns[j].name} in {sum(j in best for best in firsts[True])} of {len(firsts[True])} "
            f"rows (published: {sum(j in best for best in firsts[False])} of {len(firsts[False])})"
            for j in columns
        ]
        lines.append(f"- Best by `{metric}`: {'; '.join(counts)}.")
    return "\n".join(lines)


def _resolved(table: Table) -> str:
    """Differences between our runs, and whether they are more than what another seed would change."""
    words = {None: "one seed", True: "yes", False: "no"}
    rows = []
    for paired in comparisons(table):
        column = table.published.columns[paired.column]
        text = mean_text(paired.difference, column.digits, sign=True)
        rows.append([*table.labels[paired.row], heading(column), paired.other, text, words[paired.resolved]])
    if not rows:
        return ""
    head = [*table.published.head, "column", "minus", "difference", "resolved"]
    note = (
        "Runs with the same seed are compared in pairs. Resolved: the 95 % confidence interval of the mean difference "
        "(Student's t) excludes 0, for each difference alone: one in twenty would do so by chance."
    )
    return f"{_grid(head, rows)}\n\n{note}"


def _differences(table: Table) -> str:
    """Differences and ranks of all entries with both numbers."""
    rows = []
    for j, column in enumerate(table.published.columns):
        for i, label in enumerate(table.labels):
            entry = table.entries[i][j]
            if entry.difference is not None:
                ranks = [str(rank) for rank in reversed(entry.ranks)] if entry.ranks else [NONE] * 2
                rows.append([*label, heading(column), difference_text(entry, column), *ranks])
    if not rows:
        return ""
    head = [*table.published.head, "column", "here − published", "rank here", "rank published"]
    note = "Rank 1 is the best of all entries of a metric that have both numbers."
    return f"## Differences and ranks\n\n{_grid(head, rows)}\n\n{note}"


def _differs(table: Table) -> str:
    texts = [table.published.differs[key] for key in ("all", table.scale) if key in table.published.differs]
    texts += [f"Our runs use `{change}`." for change in table.changes]
    return "\n".join(f"- {' '.join(text.split())}" for text in texts)


def _runs(table: Table) -> str:
    """The cost of each entry's runs."""
    head = [*table.published.head, "class", "seeds", "parameters", "time per step", "peak memory", "total time"]
    rows: list[list[str]] = []
    seen: list[list[dict[str, Any]]] = []
    for i, label in enumerate(table.labels):
        for entry in table.entries[i]:
            if entry.runs and entry.runs not in seen:
                seen.append(entry.runs)
                rows.append([*label, *_costs(entry.runs)])
    return _grid(head, rows) if rows else f"{NOT_RUN.capitalize()}."


def _costs(runs: Sequence[dict[str, Any]]) -> list[str]:
    return [
        runs[0]["model"],
        ", ".join(str(run["seed"]) for run in runs),
        f"{runs[0]['num_parameters']:,}",
        _by_group(runs, "step_time_s", _threads, lambda seconds: f"{1000 * statistics.median(seconds):.0f} ms"),
        _by_group(runs, "peak_memory_bytes", _device, lambda sizes: f"{2**-30 * statistics.fmean(sizes):.2f} GiB"),
        _by_group(runs, "total_time_s", _threads, lambda seconds: f"{statistics.median(seconds) / 60:.1f} min"),
    ]


def _by_group(
    runs: Sequence[dict[str, Any]],
    key: str,
    group: Callable[[dict[str, Any]], str],
    text: Callable[[list[float]], str],
) -> str:
    """A number of the runs, separately for each of their groups if there are several."""
    groups: dict[str, list[float]] = {}
    for run in runs:
        if run.get(key) is not None:
            groups.setdefault(group(run), []).append(run[key])
    texts = {name: text(values) for name, values in sorted(groups.items())}
    if len(texts) < 2:
        return "".join(texts.values()) or NONE
    return ", ".join(f"{text} ({name})" for name, text in texts.items())


def _threads(run: dict[str, Any]) -> str:
    threads = run["hardware"]["threads"]
    return f"{threads} thread{'s' * (threads > 1)}"


def _device(run: dict[str, Any]) -> str:
    return "GPU" if run.get("peak_memory_kind") == "cuda_allocated" else "process"


def _provenance(results: Sequence[dict[str, Any]]) -> str:
    if not results:
        return ""
    dates = sorted(str(result["finished"])[:10] for result in results)
    period = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return (
        f"{len(results)} {'run' if len(results) == 1 else 'runs'}, {period}. "
        f"Commit {_listed(_commit(commit) for result in results for commit in _commits(result))}. "
        f"Hardware: {_listed(_hardware(result['hardware']) for result in results)}. "
        f"torch {_listed(result['versions'].get('torch', '?') for result in results)}, "
        f"Python {_listed(result['versions'].get('python', '?') for result in results)}. "
        "Mean ± sample standard deviation over seeds; times are medians. The JSON files in `results/` hold the "
        "complete runs."
    )


def _commits(result: dict[str, Any]) -> list[str]:
    """The commits of all processes of a run; the last one is the one that finished it."""
    return [*map(str, result.get("earlier_git_commits", [])), str(result["git_commit"])]


def _commit(commit: str) -> str:
    name, _, dirty = commit.partition("-")
    return name[:12] + (" with uncommitted changes" if dirty else "")


def _hardware(hardware: dict[str, Any]) -> str:
    return ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, {hardware['threads']} of {hardware['cores']} cores"


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    bar = r"\|"  # inside of a cell
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', bar) for cell in line)} |" for line in lines)
