"""From a command line to cells, and finished runs that come from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.config.checks import plain
from src.config.composition import compose_config
from src.runs.summary import write_summary
from src.sweeps.plan import adopt, finished_elsewhere, make_plan, table_keys
from src.utils.errors import ConfigError
from src.utils.reading import FileError

SWEEP = """
program: train.py
method: grid
parameters:
  experiment: {value: ct_postproc}
  scale: {value: small}
  model: {values: [unet, iunet]}
  network.num_couplings: {value: 2}
  seed: {values: [0]}
command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"]
"""


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments" / "table"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "experiments" / "notes").mkdir()
    return folder.parent


def test_a_folder_with_a_sweep_is_a_table(experiments: Path) -> None:
    assert table_keys(experiments) == ["table"]
    with pytest.raises(ConfigError, match="expected a table, got 'tabel'; did you mean 'table'"):
        make_plan(experiments, "tabel", [])
    with pytest.raises(FileError, match="expected a sweep file"):
        make_plan(experiments, "table", [], "search")


def test_cells_have_names_and_folders(experiments: Path, tmp_path: Path) -> None:
    plan = make_plan(experiments, "table", ["seed=0,1", "datamodule.data_dir=elsewhere"])
    cells = plan.cells(tmp_path)
    assert [cell.name for cell in cells] == [f"model-{m}_seed-{s}" for m in ("unet", "iunet") for s in (0, 1)]
    assert len({cell.digest for cell in cells}) == 4
    assert cells[0].folder == tmp_path / "table" / "small" / f"model-unet_seed-0_{cells[0].digest}"
    assert "datamodule.data_dir=elsewhere" in cells[0].command()


@pytest.mark.parametrize(
    ("arguments", "variant", "command"),
    [
        ([], "small", "python reproduce.py table scale=small"),
        (["scale=paper", "seed=3", "model=unet", "logger=csv"], "paper", "python reproduce.py table scale=paper"),
        (
            ["trainer.max_epochs=1", "network.num_couplings=4", "backprop=stored"],
            "small_backprop-stored_network.num-couplings-4_trainer.max-epochs-1",
            "python reproduce.py table scale=small backprop=stored network.num_couplings=4 trainer.max_epochs=1",
        ),
        (["lr=1e+3", "~a"], "small_lr-1e+3_a", "python reproduce.py table scale=small lr=1e+3 '~a'"),
        (["lr=1e-3"], "small_lr-1e-3", "python reproduce.py table scale=small lr=1e-3"),
        (["mixing=-1"], "small_mixing--1", "python reproduce.py table scale=small mixing=-1"),
        (
            ["network.num_couplings=null"],
            "small_network.num-couplings-null",
            "python reproduce.py table scale=small network.num_couplings=null",
        ),
    ],
)
def test_what_changes_results_has_tables_of_its_own(
    arguments: list[str], variant: str, command: str, experiments: Path
) -> None:
    plan = make_plan(experiments, "table", arguments)
    assert plan.variant == variant and plan.command == command


@pytest.mark.parametrize("name", ["sweep", "search"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (["datamodule.data_dir=a/b"], []),
        (["experiment=restoration", "datamodule=pairs"], ["datamodule-pairs", "experiment-restoration"]),
        (
            ["experiment=restoration", "datamodule=pairs", "datamodule.data_dir=a/b"],
            ["datamodule.data-dir-a-b-f5effa31", "datamodule-pairs", "experiment-restoration"],
        ),
    ],
)
def test_each_folder_of_your_own_data_has_a_table(
    data: list[str], words: list[str], name: str, experiments: Path
) -> None:
    drawn = SWEEP.replace("grid", "random").replace("seed:", "task.optimizer.lr: {min: 0.0, max: 1.0}\n  seed:")
    (experiments / "table" / "search.yaml").write_text(drawn)
    assert make_plan(experiments, "table", data, name).variant == "_".join(["small", *words])


@pytest.mark.parametrize(("one", "two"), [("/a/b", "/a-b"), ("/a_b", "/a-b"), ("a/", "a"), ("/", "null")])
def test_two_folders_never_share_a_table(one: str, two: str, experiments: Path) -> None:
    variants = [
        make_plan(experiments, "table", ["experiment=restoration", f"datamodule.data_dir={folder}"]).variant
        for folder in (one, two)
    ]
    assert variants[0] != variants[1]


@pytest.mark.parametrize("argument", ["network.num_couplings=2,4", "scale=small,medium", "experiment=a,b"])
def test_several_values_of_what_the_file_does_not_vary_are_refused(argument: str, experiments: Path) -> None:
    name = argument.partition("=")[0]
    with pytest.raises(
        ConfigError, match=f"expected one value of {name}, which the sweep file does not vary, got '{argument}'"
    ):
        make_plan(experiments, "table", [argument])


@pytest.mark.parametrize(
    ("arguments", "variant"),
    [
        ([], "small"),
        (["scale=paper", "seed=0"], "paper"),
        (["model=unet", "lr=0.1"], "small_lr-0.1_model-unet"),
        (["model=iunet,unet"], "small_model-iunet-unet"),
    ],
)
def test_a_search_of_a_part_of_the_space_is_a_variant(arguments: list[str], variant: str, experiments: Path) -> None:
    (experiments / "table" / "search.yaml").write_text(
        SWEEP.replace("grid", "random").replace("seed: {values: [0]}", "lr: {min: 0.0, max: 1.0}\n  seed: {value: 0}")
    )
    assert make_plan(experiments, "table", arguments, "search").variant == variant


def test_a_file_has_one_scale(experiments: Path) -> None:
    file = experiments / "table" / "sweep.yaml"
    file.write_text(SWEEP.replace("scale: {value: small}", "scale: {values: [small, medium]}"))
    with pytest.raises(ConfigError, match="expected one value of scale, because each scale has a table of its own"):
        make_plan(experiments, "table", [])
    assert make_plan(experiments, "table", ["scale=medium"]).variant == "medium"


def test_a_file_without_scales_takes_none(experiments: Path) -> None:
    file = experiments / "table" / "sweep.yaml"
    file.write_text(SWEEP.replace("  scale: {value: small}\n", ""))
    assert make_plan(experiments, "table", ["seed=1"]).variant == "default"
    with pytest.raises(ConfigError, match="expected no scale for table, whose sweep file has none, got scale=small"):
        make_plan(experiments, "table", ["scale=small"])


def test_cells_of_the_same_name_are_refused_before_any_runs(experiments: Path) -> None:
    with pytest.raises(ConfigError, match="got model-a-b_seed-0 for model=a/b seed=0 and model=a-b seed=0"):
        make_plan(experiments, "table", ["model=a/b,a-b"]).cells()


def test_a_cell_that_does_not_compose_is_refused_before_any_runs(experiments: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'trainer\.max_epochs'"):
        make_plan(experiments, "table", ["trainer.max_epoch=3"]).cells()


def test_the_other_cells_are_those_of_the_file_with_the_same_changes(experiments: Path) -> None:
    sweep = experiments / "table" / "sweep.yaml"
    sweep.write_text(SWEEP.replace("[unet, iunet]", "[unet, iunet, a_removed_one]").replace("[0]", "[0, 1]"))
    changed = ["trainer.max_epochs=7", "datamodule.data_dir=elsewhere"]
    plan = make_plan(experiments, "table", ["model=unet", "seed=0,5", *changed])
    names = [f"model-{model}_seed-{seed}" for model in ("unet", "iunet", "a-removed-one") for seed in (0, 1, 5)]
    others = plan.other_cells(names)
    assert [cell.name for cell in others] == ["model-unet_seed-1", "model-iunet_seed-0", "model-iunet_seed-1"]
    assert all(cell.identity["trainer"]["max_epochs"] == 7 for cell in others)
    assert [cell.name for cell in plan.other_cells(["model-iunet_seed-1"])] == ["model-iunet_seed-1"]


def test_runs_of_other_programs_are_taken_over(experiments: Path, tmp_path: Path) -> None:
    cells = make_plan(experiments, "table", []).cells(tmp_path / "outputs")
    run = tmp_path / "elsewhere" / "a" / "run"
    config = plain(compose_config(["model=iunet", "logger=csv", f"run_dir={run}"]), resolve=True)
    write_summary({"config": config, "run_dir": str(run), "metrics": {"x": 1.0}})
    other = tmp_path / "elsewhere" / "b"
    write_summary({"config": {**config, "seed": 5}, "run_dir": str(other), "metrics": {}})

    ((cell, source),) = finished_elsewhere(cells, [tmp_path / "elsewhere"])
    assert cell.name == "model-iunet_seed-0" and not cell.is_finished()
    adopt(source, cell.run)
    assert cell.is_finished() and cell.summary()["metrics"] == {"x": 1.0}
    assert finished_elsewhere(cells, [tmp_path / "elsewhere"]) == []
    with pytest.raises(ConfigError, match=r"expected a folder of runs, got '.*nowhere', which does not exist"):
        finished_elsewhere(cells, [tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="which is a file"):
        finished_elsewhere(cells, [other / "summary.json"])
