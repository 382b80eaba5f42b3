"""CPU time of the CT simulation by stage, compared with foam_ct_phantom, ASTRA and scikit-image, and of its loader.

    python -m benchmarks.ct [FOLDER] [--quick]

Writes ``ct.txt``, ``ct.json`` and ``ct.png`` to the folder, if one is given. Candidates take turns, and ratios are
medians over rounds. Libraries that cannot be imported are skipped with a note. foam_ct_phantom
(github.com/dmpelt/foam_ct_phantom) must be on the import path with its C code compiled, and needs h5py, tqdm and
pathlib2::

    cd foam_ct_phantom && gcc -O3 -std=gnu99 -fopenmp -shared -fPIC ccode_c.c -o libccode_c.so -lm
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.ct_loader import datamodule, generation_seconds, loader_rows, step_seconds
from benchmarks.ct_peers import (
    PEERS,
    Tasks,
    available,
    check_agreement,
    covered,
    draw,
    draw_foam_ct_phantom,
)
from benchmarks.ct_report import as_text, plot
from benchmarks.ct_stages import Setting, stage_seconds, timed_result, variations
from benchmarks.measure import median_ratio, timed
from benchmarks.results_folder import folder_and_quick, write_results
from benchmarks.threads import threads
from src.ct.foam import FoamSpec
from src.runs.provenance import provenance
from src.utils.processes import available_cpus

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Plan:
    """The settings and the extent of the measurement."""

    base: Setting
    others: dict[str, tuple[int, ...]]
    rounds: int
    num_trial_points: tuple[int, ...]
    volumes: int
    processes: int
    small: Setting
    num_workers: tuple[int, ...]
    num_batches: int


FULL = Plan(
    base=Setting(),
    others={"size": (32, 128), "balls": (100, 300), "views": (12, 48)},
    rounds=2,
    # Our default, and that of foam_ct_phantom.
    num_trial_points=(FoamSpec.num_trial_points, 1_000_000),
    volumes=200,
    processes=available_cpus(),
    small=Setting(32, 100, 12),
    num_workers=(0, 1, 2),
    num_batches=200,
)
QUICK = Plan(
    base=Setting(8, 10, 4),
    others={"size": (12,), "balls": (5,), "views": (6,)},
    rounds=1,
    num_trial_points=(1_000,),
    volumes=4,
    processes=0,
    small=Setting(8, 5, 4),
    num_workers=(0,),
    num_batches=2,
)


def compare(tasks: dict[str, dict[str, Callable[[], Any]]], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Median CPU seconds by task and candidate, and their ratio to ours."""
    found = {}
    for task, candidates in tasks.items():
        seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for round_number in range(rounds):
            for name in list(candidates)[:: 1 if round_number % 2 else -1]:
                seconds[name].append(timed(candidates[name]))
        found[task] = {
            name: {"cpu_seconds": statistics.median(s), "over_ours": median_ratio(s, seconds["ours"])}
            for name, s in seconds.items()
        }
    return found


def placement_quality(setting: Setting, peers: list[str], num_trial_points: tuple[int, ...]) -> list[dict[str, Any]]:
    """CPU seconds of placement and the share of the cylinder covered; ours uses the first number of trial points."""
    ways = [("ours", draw, num_trial_points[0])]
    if "foam_ct_phantom" in peers:
        ways += [("foam_ct_phantom", draw_foam_ct_phantom, n) for n in num_trial_points]
    rows = []
    for name, way, points in track(ways, description="Placement"):
        seconds, phantom = timed_result(functools.partial(way, setting, 1, points))
        rows.append({"by": name, "trial_points": points, "cpu_seconds": seconds, "covered": covered(phantom)})
    return rows


def measure(plan: Plan, peers: list[str], folder: Path) -> dict[str, Any]:
    """Measure everything; `folder` receives the simulated volumes."""
    settings = variations(plan.base, **plan.others)
    agreement = check_agreement(plan.small, peers)
    stages = [
        {**vars(s), **stage_seconds(s, range(plan.rounds))} for s in track(settings, description="Stages of a scan")
    ]
    rows = [
        {**vars(s), "tasks": compare(Tasks(s).candidates(peers), plan.rounds)}
        for s in track(settings, description="Comparison")
    ]
    quality = placement_quality(plan.base, peers, plan.num_trial_points)
    generation = generation_seconds(folder, plan.base, plan.volumes, plan.processes)
    small = datamodule(folder, plan.small, min(plan.volumes, 64), batch_size=2, generation_workers=0)
    with threads(max(1, plan.processes)):  # as in training
        step = step_seconds(plan.small.size, small.batch_size, 3 * plan.rounds)
    loaders = [
        *loader_rows(small, plan.num_workers, plan.num_batches, step),
        # This scale trains on a GPU, so its step is not timed.
        *loader_rows(datamodule(folder, plan.base, plan.volumes - 2), plan.num_workers, plan.num_batches, None),
    ]
    return {
        "agreement": agreement,
        "stages": stages,
        "beside_peers": rows,
        "placement": quality,
        "generation": generation,
        "loaders": loaders,
    }


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    folder, quick = folder_and_quick(__doc__, argv)
    plan, peers = QUICK if quick else FULL, available()
    for name in PEERS:
        if name not in peers:
            print(f"{name} cannot be imported and is skipped")
    about = {**provenance(ROOT), "peers": peers}
    with tempfile.TemporaryDirectory() as scratch, threads(1):
        result = {**about, **measure(plan, peers, Path(scratch))}
    write_results(folder, "ct", result, as_text(result), plot)


if __name__ == "__main__":
    main()
