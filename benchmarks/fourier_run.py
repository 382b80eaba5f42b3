"""One setting of `benchmarks.fourier` as a run of ``experiments/iconvnet_figure2/sweep.yaml``.

    python -m benchmarks.fourier_run setting=64x8 run_dir=FOLDER [batch=32] [rounds=5] [device=cuda]

Writes ``summary.json`` like a training run, with the milliseconds of each operation and candidate as metrics.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.fourier import BATCH, KERNEL_SIZE, runtimes
from benchmarks.threads import threads
from src.invertible.layers.fourier import FourierConvolution
from src.runs.provenance import provenance
from src.runs.summary import num_parameters, write_summary
from src.utils.errors import ConfigError, user_errors

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = "iconvnet_figure2"


@dataclass
class Setting:
    """The measurement and the folder of its result.

    Attributes:
        setting: channels and side of the images in pixels, such as ``64x8``.
        batch: images per batch.
        rounds: measurements of which the median counts.
        device: ``cpu`` or ``cuda``.
        seed: number of the repetition; the images are always the same.
        run_dir: folder of the result.
    """

    setting: str = "64x8"
    batch: int = BATCH
    rounds: int = 5
    device: str = "cpu"
    seed: int = 0
    run_dir: str = f"outputs/{EXPERIMENT}/${{setting}}"


def read_setting(arguments: Sequence[str]) -> Setting:
    """Return the setting that the command line asks for.

    Raises:
        ConfigError: for an unknown key or an invalid value.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Setting), OmegaConf.from_dotlist(list(arguments)))
        setting = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"expected key=value arguments of benchmarks.fourier_run, got: {problem}") from error
    assert isinstance(setting, Setting)
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", setting.setting) or min(setting.batch, setting.rounds) < 1:
        raise ConfigError(
            f"expected setting=<channels>x<pixels> and positive batch and rounds, got setting={setting.setting} "
            f"batch={setting.batch} rounds={setting.rounds}"
        )
    return setting


def measure(setting: Setting) -> dict[str, Any]:
    """Return the summary of the run."""
    started = time.perf_counter()
    channels, size = map(int, setting.setting.split("x"))
    with threads(1):
        found = runtimes(channels, size, setting.batch, setting.rounds, setting.device)
        origin = provenance(ROOT)
    times = {
        f"test/{operation}_{candidate}_ms": 1e3 * time["seconds"]
        for operation, candidates in found.items()
        for candidate, time in candidates.items()
    }
    return {
        "experiment": EXPERIMENT,
        "model": "fourierconvolution",
        "seed": setting.seed,
        "metrics": times,
        "num_parameters": num_parameters(FourierConvolution(channels, KERNEL_SIZE, spatial_dims=2)),
        "total_time_s": time.perf_counter() - started,
        "run_dir": setting.run_dir,
        "config": {"experiment": EXPERIMENT, **asdict(setting)},
        **origin,
    }


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    with user_errors(show_traceback=False):
        summary = measure(read_setting(arguments))
        print("\n".join(f"{name} {value:.2f}" for name, value in summary["metrics"].items()))
        write_summary(summary)


if __name__ == "__main__":
    main(sys.argv[1:])
