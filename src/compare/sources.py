"""Find the runs named on a command line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.compare.runs import RunRecord, read_result, read_run
from src.runs.folder import RunFolder, run_folders


@dataclass
class Sources:
    """The runs, figures and notes found.

    Attributes:
        runs: by a unique short name.
        figures: pictures of a whole table, by name.
        notes: what was skipped and why, to be shown to the user.
    """

    runs: dict[str, RunRecord] = field(default_factory=dict)
    figures: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_sources(arguments: Sequence[str]) -> Sources:
    """Return the runs that ``arguments`` name: run folders, summaries, folders of runs, ``experiments/<key>``.

    A run named directly must be readable. An unreadable run inside a folder is noted and skipped.

    Raises:
        ValueError: for an argument without a run or a file that cannot be read, naming it.
    """
    found = Sources()
    runs: dict[Path, RunRecord] = {}
    for argument in arguments:
        for run in _runs_of(Path(argument), found):
            runs.setdefault(run.path.resolve(), run)
    found.runs = dict(zip(short_names([run.path for run in runs.values()]), runs.values(), strict=True))
    return found


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that are all different; ``results`` and suffixes are ignored."""
    # A folder's name may contain a dot, too: lr=0.01.
    bare = [path.with_suffix("") if path.suffix in (".json", ".png") else path for path in map(Path.resolve, paths)]
    parts = [[part for part in path.parts if part != "results"] for path in bare]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _runs_of(path: Path, found: Sources) -> list[RunRecord]:
    if path.is_file():
        return [read_result(path)]
    if RunFolder(path).is_run():
        return [read_run(path)]
    if path.is_dir():
        folders = [folder.path for folder in run_folders(path)]
        if folders:
            return _readable(read_run, folders, path, found)
        figures = sorted(path.rglob("*.png"))
        names = [f"{path.name}: {name}" for name in short_names(figures)]
        found.figures |= dict(zip(names, figures, strict=True))
        return _readable(read_result, sorted(path.rglob("*.json")), path, found)
    raise ValueError(
        f"expected a run folder with summary.json, a folder of runs or experiments/<key>, got {str(path)!r}"
    )


def _readable(
    read: Callable[[Path], RunRecord], paths: Sequence[Path], source: Path, found: Sources
) -> list[RunRecord]:
    runs = []
    for path in paths:
        try:
            runs.append(read(path))
        except ValueError as error:
            found.notes.append(f"skipped: {error}")
    if not runs:
        reasons = "".join(f"; {note}" for note in found.notes)
        raise ValueError(f"expected a run folder with summary.json, got {str(source)!r} without any run{reasons}")
    return runs
