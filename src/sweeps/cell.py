"""A cell of a sweep: its arguments, its files, its progress."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.runs.folder import RunFolder
from src.runs.summary import read_summary
from src.sweeps.arguments import argument
from src.sweeps.command import command_line
from src.sweeps.identity import Identify, is_execution_key
from src.sweeps.sweep import Sweep
from src.utils.digest import digest
from src.utils.files import shortened


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        parameters: the values of the sweep's parameters.
        overrides: further arguments.
        name: the values that vary, readable.
        identity: everything that can change the result, see `src.sweeps.identity`.
        parent: the folder that contains the run folder.
    """

    sweep: Sweep
    parameters: dict[str, Any]
    overrides: tuple[str, ...]
    name: str
    identity: Any
    parent: Path

    @property
    def digest(self) -> str:
        """The digest of the identity."""
        return digest(self.identity)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.parent / f"{self.name}_{self.digest}"

    @property
    def run(self) -> RunFolder:
        """The files in the run folder."""
        return RunFolder(self.folder)

    @property
    def log(self) -> Path:
        """The output of all attempts at the run."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def lock(self) -> Path:
        """Locked while the run's process lives."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    def is_finished(self) -> bool:
        """Whether the run is complete."""
        return self.run.summary.is_file()

    def can_be_resumed(self) -> bool:
        """Whether an interrupted run left a checkpoint."""
        return self.run.checkpoint().is_file()

    def summary(self) -> dict[str, Any]:
        """Return the summary of the finished run.

        Raises:
            FileError: for a damaged file.
        """
        return read_summary(self.run.summary, ["metrics"])

    def command(self) -> list[str]:
        """Return the command line of a new run."""
        return command_line(self.sweep, self.parameters, [*self.overrides, f"run_dir={self.folder}"])

    def resume_command(self) -> list[str]:
        """Return the command line that resumes an interrupted run, whose configuration is in its checkpoint."""
        kept = [override for override in self.overrides if is_execution_key(override.partition("=")[0])]
        return command_line(self.sweep, {"resume": str(self.folder)}, kept)


def make_cell(
    sweep: Sweep, parameters: dict[str, Any], overrides: Sequence[str], identify: Identify, parent: Path
) -> Cell:
    """Return the cell with these parameters.

    Raises:
        ConfigError: if ``identify`` refuses its arguments.
    """
    identity = identify([*(argument(name, value) for name, value in parameters.items()), *overrides])
    return Cell(sweep, parameters, tuple(overrides), cell_name(sweep, parameters), identity, parent)


def cell_name(sweep: Sweep, parameters: dict[str, Any]) -> str:
    """Return the parameters that vary as one readable word, such as ``blowup-8_depth-deep_model-unet_seed-0``.

    Numbers that a search draws are rounded to four digits; its trials are known by their digests.
    """
    values = {name: parameters[name] for name in sweep.varied}
    if sweep.method != "grid":
        values = {name: float(f"{v:.4g}") if isinstance(v, float) else v for name, v in values.items()}
    words = [f"{name.rpartition('.')[2]}-{readable(value)}" for name, value in values.items()]
    return shortened("_".join(words) or "run")


def readable(value: Any) -> str:
    """Return a value as a part of a file name that keeps all digits and the sign of a number."""
    text = _short(value) if isinstance(value, float) else str(value)
    inner = re.sub(r"^[^A-Za-z0-9.+-]+|[^A-Za-z0-9.+]+$", "", text)
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", inner)


def _short(value: float) -> str:
    """Four digits, or all if it has more."""
    text = f"{value:.4g}"
    return text if float(text) == value else repr(value)
