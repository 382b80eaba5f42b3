"""The code, hardware and package versions behind a measured number."""

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from src.utils.processes import available_cpus

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "wandb")

ROOT = Path(__file__).resolve().parents[2]

# Git's patterns of files that no run depends on.
NO_CODE = (":!*.md", ":!experiments/*/results/*", ":!benchmarks/results")
# New files count here.
CODE = (":(glob)*.py", "src", "configs", "experiments")


def provenance(folder: Path) -> dict[str, Any]:
    """Return the commit of the checkout in ``folder``, the hardware and the package versions."""
    return {"git_commit": git_commit(folder), "hardware": hardware(), "versions": versions()}


def git_commit(folder: Path) -> str | None:
    """Return the commit of the checkout in ``folder``, with "-dirty" for uncommitted changes; None without one.

    Results and texts do not count: `reproduce.py` writes both while the runs of a table go on.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE)
        changed = changed or _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", *CODE, *NO_CODE)
    except (OSError, subprocess.SubprocessError):
        # No git, no repository (a downloaded archive), or no commit yet: a run does not need them.
        return None
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional logger that is not installed
    return found


def hardware(gpus: Iterable[int] | None = None) -> dict[str, Any]:
    """Return the processor, the number of cores that this process may use, torch's threads and the GPUs.

    Args:
        gpus: indices of those that were used; None: all.
    """
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": available_cpus(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in (range(torch.cuda.device_count()) if gpus is None else gpus)],
        "platform": platform.platform(),
    }
