"""Runs that no row of a table shows, noticed before they take hours."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from src.config.checks import model_name
from src.sweeps.cell import Cell
from src.tables.published import Published
from src.tables.results import describe


def planned(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return what is known of each cell before it runs, by its name: all but the section ``network``."""
    return {cell.name: _description(cell) for cell in cells}


def runs_without_row(published: Published, runs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return one line for each run that no row shows, with what the nearest row asks for in its place.

    Args:
        runs: by name, see `planned` and `describe`.
    """
    matches = [published.match(i, j) for i, j in published.entries()]
    lines = []
    for name, run in runs.items():
        nearest = min((_differing(run, match) for match in matches), key=len, default=())
        if nearest:
            asked = ", ".join(f"{key}={value} (the run has {run.get(key)})" for key, value in nearest)
            lines.append(f"{name}: in no row of published.yaml; the nearest one asks for {asked}")
    return lines


def _differing(run: dict[str, Any], match: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    known = "network" in run
    return tuple(
        (key, value)
        for key, value in match.items()
        if (known or key in run or not key.startswith("network.")) and (key not in run or run[key] != value)
    )


def _description(cell: Cell) -> dict[str, Any]:
    if isinstance(cell.identity, dict):
        name = model_name(cell.identity)  # the choice of the command line is another name
        return {**describe(name, cell.identity), **cell.parameters, "model": name}
    return describe("", OmegaConf.to_container(OmegaConf.from_dotlist(cell.identity)))  # type: ignore[arg-type]
