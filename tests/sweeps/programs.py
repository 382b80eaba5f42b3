"""Quick programs in place of train.py, with its conventions: run_dir, resume, checkpoints/last.ckpt, summary.json."""

from __future__ import annotations

from pathlib import Path

from src.sweeps.cell import Cell, make_cell
from src.sweeps.grid import grid
from src.sweeps.identity import identity_of_arguments
from src.sweeps.sweep import Sweep

# Counts its starts in `starts`, trains for `steps` steps of 0.05 s with a checkpoint after each, writes a summary.
TRAINER = """
import json, os, pathlib, signal, sys, time
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
arguments = dict(word.partition("=")[::2] for word in sys.argv[1:])
folder = pathlib.Path(arguments.get("resume") or arguments["run_dir"])
checkpoint = folder / "checkpoints" / "last.ckpt"
checkpoint.parent.mkdir(parents=True, exist_ok=True)
if "resume" in arguments:
    arguments = {**json.loads(checkpoint.read_text()), **arguments}
with open(folder.parent / "starts", "a") as file:
    file.write(f"{folder.name} {'resumed' if 'resume' in arguments else 'new'}\\n")
if arguments.get("fail") == "1":
    print("about to fail")
    sys.exit("expected a better value, got fail=1")
done = int(arguments.get("done", 0))
for step in range(done, int(arguments.get("steps", 0))):
    time.sleep(0.05)
    temporary = checkpoint.with_suffix(".tmp")
    temporary.write_text(json.dumps({**arguments, "done": step + 1, "resume": ""}))
    temporary.replace(checkpoint)
    print("step", step + 1, flush=True)
    if stopped:
        sys.exit(143)
x = float(arguments.get("x", 0))
summary = {"metrics": {"loss": (x - 0.3) ** 2}, "seed": int(arguments.get("seed", 0)), "run_dir": str(folder),
           "model": "fake", "config": {"x": x}, "num_parameters": 1, "git_commit": None, "versions": {},
           "hardware": {"cpu": "a CPU", "cores": 1, "threads": int(os.environ["OMP_NUM_THREADS"]), "gpus": []}}
(folder / "summary.json.part").write_text(json.dumps(summary))
(folder / "summary.json.part").replace(folder / "summary.json")
"""
COMMAND = ("${env}", "${interpreter}", "${program}", "${args_no_hyphens}")


def write_program(folder: Path) -> str:
    """Write the program into a folder and return its path."""
    path = folder / "trainer.py"
    path.write_text(TRAINER)
    return str(path)


def sweep_of(program: str, **parameters: list) -> Sweep:
    """Return a grid over these parameters."""
    specs = {name: {"values": values} for name, values in parameters.items()}
    return Sweep(program, "grid", specs, COMMAND, None, None, tuple(sorted(parameters)))


def cells_of(sweep: Sweep, parent: Path, *overrides: str) -> list[Cell]:
    """Return the cells of a grid."""
    return [make_cell(sweep, parameters, overrides, identity_of_arguments, parent) for parameters in grid(sweep)]


def starts(parent: Path) -> list[tuple[str, str]]:
    """Return the starts of the program: run folder, and "new" or "resumed"."""
    path = parent / "starts"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []  # type: ignore[misc]
