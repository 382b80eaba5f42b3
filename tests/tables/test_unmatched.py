"""Runs that no row of a table shows."""

from pathlib import Path
from typing import Any

from src.tables.published import NumberColumn, Published, Row
from src.tables.results import describe
from src.tables.unmatched import planned, runs_without_row
from tests.sweeps.programs import cells_of, sweep_of, write_program


def table(*matches: dict[str, Any]) -> Published:
    rows = tuple(Row((str(i),), (1.0,), match) for i, match in enumerate(matches))
    return Published("a", "b", "c", ("x",), (NumberColumn("loss", "loss"),), rows)


def test_runs_are_named_with_what_the_nearest_row_asks_for() -> None:
    config = {"model": {"_target_": "src.models.iunet.IUNet"}, "network": {"depth": "deep", "blowup": 4}, "seed": 0}
    runs = {"a": describe("iunet", config)}
    assert runs_without_row(table({"model": "iunet", "network.depth": "deep"}), runs) == []
    (line,) = runs_without_row(table({"model": "i_unet"}, {"model": "i_unet", "network.blowup": 8}), runs)
    assert line == "a: in no row of published.yaml; the nearest one asks for model=i_unet (the run has iunet)"
    (line,) = runs_without_row(table({"model": "iunet", "network.dephts": "deep"}), runs)
    assert line.endswith("asks for network.dephts=deep (the run has None)")


def test_cells_are_known_before_they_run(tmp_path: Path) -> None:
    cells = cells_of(sweep_of(write_program(tmp_path), x=[0.25, 1.5]), tmp_path / "runs")
    assert runs_without_row(table({"x": 0.25}, {"x": 1.5}), planned(cells)) == []
    (line,) = runs_without_row(table({"x": 0.25}), planned(cells))
    assert line.startswith(f"{cells[1].name}: ") and line.endswith("asks for x=0.25 (the run has 1.5)")


def test_a_table_that_only_quotes_asks_for_nothing() -> None:
    published = Published("a", "b", "c", ("x",), (NumberColumn("loss", "loss"),), (Row(("1",), (1.0,)),))
    assert runs_without_row(published, {"a": {"network": {}}}) == []
