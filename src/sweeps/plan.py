"""The cells that a table and a command line ask for."""

import re
import shlex
import shutil
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src.runs.folder import RunFolder, run_folders
from src.runs.summary import read_summary
from src.sweeps.arguments import argument, as_text
from src.sweeps.cell import Cell, cell_name, make_cell, readable
from src.sweeps.grid import grid
from src.sweeps.identity import (
    Identify,
    agree,
    has_own_data,
    identity_of_arguments,
    identity_of_composed,
    identity_of_config,
    is_execution_key,
)
from src.sweeps.sweep import Sweep, read_sweep, with_overrides
from src.utils.digest import digest
from src.utils.errors import ConfigError, did_you_mean
from src.utils.files import shortened

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
OUTPUTS = Path("outputs") / "reproduce"
DATA_FOLDER = "datamodule.data_dir"


@dataclass(frozen=True)
class Plan:
    """The meaning of a command line of reproduce.py.

    Attributes:
        key: the folder of the table under ``experiments/``.
        sweep: with the values of the command line.
        overrides: further arguments of every cell.
        scale: the value of ``scale``.
        changes: the arguments by which the results, or a search's space, differ from the sweep file's at this scale.
        varied: what the file says of the parameters of which the command line may select values.
    """

    key: str
    sweep: Sweep
    overrides: tuple[str, ...]
    scale: str
    changes: tuple[str, ...]
    varied: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """Scale and changes as one word."""
        return self.variant_of(self.scale)

    def variant_of(self, name: str) -> str:
        """Return a name and the changes as one word."""
        return shortened("_".join([name, *map(_word, self.changes)]))

    @property
    def command(self) -> str:
        """The command line that makes the whole table."""
        scale = [f"scale={self.scale}"] if "scale" in self.sweep.parameters else []
        return shlex.join(["python", "reproduce.py", self.key, *scale, *self.changes])

    @property
    def identify(self) -> Identify:
        """From a cell's arguments to its identity."""
        return identity_of_composed if self.sweep.program == "train.py" else identity_of_arguments

    def parent(self, outputs: Path = OUTPUTS) -> Path:
        """The folder of the run folders."""
        return outputs / self.key / self.scale

    def cells(self, outputs: Path = OUTPUTS) -> list[Cell]:
        """Return the cells of a grid.

        Raises:
            ConfigError: if the arguments of one do not compose, or two have the same name.
        """
        self._named()  # before composing, which takes time
        return [self._cell(parameters, outputs) for parameters in grid(self.sweep)]

    def other_cells(self, names: Collection[str], outputs: Path = OUTPUTS) -> list[Cell]:
        """Return the cells with these names that the file's grid has and the command line does not select.

        A cell whose arguments no longer compose is left out. Those with other names are not composed.
        """
        others = set(names) - {cell_name(self.sweep, parameters) for parameters in grid(self.sweep)}
        found = []
        for name, parameters in self._named().items():
            if name in others:
                with suppress(ConfigError):
                    found.append(self._cell(parameters, outputs))
        return found

    def _named(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each cell, of the file's grid and of the command line, by its name.

        Raises:
            ConfigError: for two cells of the same name, whose results would overwrite each other.
        """
        whole = replace(self.sweep, parameters={**self.sweep.parameters, **self.varied})
        named: dict[str, dict[str, Any]] = {}
        for parameters in (*grid(whole), *grid(self.sweep)):
            name = cell_name(self.sweep, parameters)
            other = named.setdefault(name, parameters)
            if other != parameters:
                one, two = (" ".join(argument(key, cell[key]) for key in whole.varied) for cell in (other, parameters))
                raise ConfigError(f"expected cells with different names, got {name} for {one} and {two}")
        return named

    def _cell(self, parameters: dict[str, Any], outputs: Path) -> Cell:
        return make_cell(self.sweep, parameters, self.overrides, self.identify, self.parent(outputs))


def _word(change: str) -> str:
    """Return an argument as a part of a file name, with a digest of a value that loses more than its commas."""
    key, _, value = change.partition("=")
    text = readable(value)
    lost = text != value.replace(",", "-")
    return "-".join(filter(None, [re.sub(r"[^A-Za-z0-9.]+", "-", key).strip("-"), text, digest(value) if lost else ""]))


def table_keys(experiments: Path) -> list[str]:
    """Return the folders under ``experiments/`` that have a sweep."""
    return sorted(path.parent.name for path in experiments.glob("*/sweep.yaml"))


def make_plan(experiments: Path, key: str, arguments: Sequence[str], name: str = "sweep") -> Plan:
    """Return the plan of ``python reproduce.py <key> <arguments>`` for the sweep file ``<key>/<name>.yaml``.

    Raises:
        ConfigError: for an unknown key, a file that is not a sweep, arguments that are not Hydra overrides, or a scale
            where the file has none.
    """
    keys = table_keys(experiments)
    if key not in keys:
        raise ConfigError(f"expected a table, got {key!r}{did_you_mean(key, keys)}")
    file = read_sweep(experiments / key / f"{name}.yaml")
    sweep, overrides = with_overrides(file, list(arguments))
    if "scale" not in file.parameters and "scale" in map(_key, overrides):
        raise ConfigError(f"expected no scale for {key}, whose sweep file has none, got {shlex.join(arguments)}")
    scale = _scale(sweep)
    # A command with fewer values of a grid selects some of its cells; a search with them is another search.
    selecting = {"scale", *(file.varied if file.method == "grid" else ())}
    replaced = {
        parameter: spec.get("values", [spec.get("value")])
        for parameter, spec in sweep.parameters.items()
        if parameter not in selecting and spec != file.parameters[parameter]
    }
    texts = [f"{parameter}={','.join(map(as_text, values))}" for parameter, values in replaced.items()]
    changes = [*texts, *(override for override in overrides if not is_execution_key(_key(override)))]
    varied = {name: file.parameters[name] for name in file.varied if name != "scale"}
    plan = Plan(key, sweep, tuple(overrides), scale, tuple(sorted(changes)), varied)
    folders = [override for override in overrides if _key(override) == DATA_FOLDER]
    if folders and has_own_data(_identity_of_one(plan)):
        plan = replace(plan, changes=tuple(sorted([*changes, *folders])))
    return plan


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _identity_of_one(plan: Plan) -> Any:
    """Return the identity of a cell, or of a trial whose drawn values are the configuration's."""
    lists = {
        name: spec.get("values", [spec["value"]] if "value" in spec else [])
        for name, spec in plan.sweep.parameters.items()
    }
    words = [argument(name, values[0]) for name, values in lists.items() if values]
    return plan.identify([*words, *plan.overrides])


def _scale(sweep: Sweep) -> str:
    spec = sweep.parameters.get("scale", {"value": "default"})
    if "value" not in spec:
        raise ConfigError(f"expected one value of scale, because each scale has a table of its own, got {spec}")
    return str(spec["value"])


def finished_elsewhere(cells: Iterable[Cell], folders: Iterable[Path]) -> list[tuple[Cell, RunFolder]]:
    """Return the unfinished cells of which W&B's agent, a SLURM job or anything else finished a run, and that run.

    A run belongs to a cell if its configuration is the cell's, wherever it wrote its files. Nothing is written.

    Raises:
        ConfigError: for a folder that does not exist.
    """
    found: list[tuple[Any, RunFolder]] = []
    for folder in folders:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise ConfigError(f"expected a folder of runs, got {str(folder)!r}, which {what}")
        for run in run_folders(folder):
            if run.summary.is_file():
                summary = read_summary(run.summary, ["config", "run_dir"])
                identity = identity_of_config({**summary["config"], "run_dir": summary["run_dir"]})
                found.append((identity, run))
    pairs = []
    for cell in cells:
        source = next((run for identity, run in found if agree(identity, cell.identity)), None)
        if source is not None and not cell.is_finished():
            pairs.append((cell, source))
    return pairs


def adopt(source: RunFolder, target: RunFolder) -> None:
    """Copy the table of the test set, if there is one, and then the summary, which says that the run is finished."""
    target.path.mkdir(parents=True, exist_ok=True)
    if source.test_table.is_file():
        shutil.copy2(source.test_table, target.test_table)
    partial = target.summary.with_suffix(".part")
    shutil.copy2(source.summary, partial)
    partial.replace(target.summary)
