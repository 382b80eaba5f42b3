"""Everything that some minutes on one GPU can tell about this project, in order of value.

    python -m benchmarks.gpu [--device cuda] [--minutes 13] [--output DIR] [--data DIR] [--steps NAME ...] [--quick]

Each step is a process of its own with its own time limit: gradients of every policy against double precision, the tests
marked gpu, single operations, the share of the time that the GPU computes, the engine's table, the largest cube, a CT
scan, and trainings of a minute. ``results.jsonl`` has each number as soon as it is known, and an error is a result too;
``steps.jsonl`` says how each step ended, ``log.txt`` what it printed, and ``report.md`` is written at the end. A plan
that does not fit into ``--minutes`` is cut at its end. Trainings on CIFAR-10 need ``--data`` with torchvision's folder.
``--device cpu --quick`` shows with tiny sizes that it runs: then all steps but trainings and tests share one process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.plan import PLAN, Step, chosen, within
from benchmarks.gpu.report import write_report

ROOT = Path(__file__).resolve().parents[2]
KILLED_AFTER_S = 5.0


def command_of(step: Step, arguments: argparse.Namespace) -> list[str] | str:
    """Return the command of a step, or why it cannot run."""
    if step.name == "tests":
        return [sys.executable, "-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "-m", "gpu", "tests"]
    if not step.overrides:
        word = [sys.executable, "-m", "benchmarks.gpu", "--output", str(arguments.output), "--device", arguments.device]
        return [*word, *(["--quick"] if arguments.quick else []), "--one", step.name, "--seconds", f"{step.seconds:g}"]
    folder = [f"run_dir={arguments.output / 'runs' / step.name}"]
    if step.data:
        if arguments.data is None or not (arguments.data / step.data).is_dir():
            return f"needs --data with {step.data}"
        folder += [f"datamodule.data_dir={arguments.data}"]
    trainer = "gpu" if arguments.device == "cuda" else "cpu"
    return [sys.executable, "train.py", *step.overrides, f"trainer={trainer}", *folder]


def run_step(step: Step, command: Sequence[str], output: Path) -> dict[str, object]:
    """Run a command with the step's limit, and return how it ended."""
    started = time.monotonic()
    shutil.rmtree(output / "runs" / step.name, ignore_errors=True)  # of an earlier measurement
    with (output / "log.txt").open("a") as log:
        log.write(f"== {step.name}\n")
        log.flush()
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait(step.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # a training saves itself
            try:
                code = process.wait(KILLED_AFTER_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    return {"code": code, "seconds": round(time.monotonic() - started, 1)}


def measure(name: str, arguments: argparse.Namespace, seconds: float) -> None:
    """Run a step's module in this process."""
    from benchmarks.gpu.recording import Recorder

    recorder = Recorder(arguments.output / "results.jsonl", name, arguments.device, seconds, arguments.quick)
    with recorder.measurement("step"):
        importlib.import_module(f"benchmarks.gpu.{name}").run(recorder)


def run_plan(steps: Sequence[Step], arguments: argparse.Namespace) -> None:
    """Run the steps that fit into the time, and write how each ended as soon as it has."""
    end = time.monotonic() + 60 * arguments.minutes
    for planned in steps:
        step = within(planned, end - time.monotonic())
        command = "no time left" if step is None else command_of(step, arguments)
        if step is None or isinstance(command, str):
            ended: dict[str, object] = {"skipped": command}
        elif arguments.quick and arguments.device == "cpu" and not step.overrides and step.name != "tests":
            started = time.monotonic()
            measure(step.name, arguments, step.seconds)
            ended = {"code": 0, "seconds": round(time.monotonic() - started, 1)}
        else:
            ended = run_step(step, command, arguments.output)
        line = {"step": planned.name, "limit_s": planned.seconds, **ended}
        with (arguments.output / "steps.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{key}={value}" for key, value in line.items()), flush=True)
    write_report(arguments.output)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=13.0, help="for all steps")
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu"), help="folder of the results")
    parser.add_argument("--data", type=Path, help="folder with cifar-10-batches-py")
    parser.add_argument("--steps", nargs="*", default=[], help=f"some of {', '.join(step.name for step in PLAN)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.output = arguments.output.resolve()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        measure(arguments.one, arguments, arguments.seconds)
        return
    try:
        steps = chosen(arguments.steps)
    except ValueError as error:
        parser.error(str(error))
    run_plan(steps, arguments)


if __name__ == "__main__":
    main()
