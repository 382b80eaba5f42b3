"""Every folder of experiments/ with a sweep: the sweep, the published numbers, what runs stand for which number.

A new table is found by these tests; a new data set needs its line in `TINY_DATA`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from jsonschema import Draft7Validator, FormatChecker
from omegaconf import DictConfig, OmegaConf

import train
from src.config.checks import check_config, model_name, plain
from src.config.composition import CONFIG_DIR, compose_config
from src.config.targets import check_targets
from src.sweeps.grid import grid
from src.sweeps.plan import EXPERIMENTS, make_plan, table_keys
from src.sweeps.search_space import SearchSpace
from src.sweeps.sweep import read_sweep, with_overrides
from src.tables.published import Published, Row, read_published
from src.tables.results import describe, fits, load
from src.tasks.metrics import described, from_plain
from tests.image_files import write_cifar10, write_mnist
from tests.marks import slow

KEYS = table_keys(EXPERIMENTS)
# Tables of trainings; the others are benchmarks.
TRAINED = [key for key in KEYS if read_sweep(EXPERIMENTS / key / "sweep.yaml").program == "train.py"]
SCALES = sorted(path.stem for path in (CONFIG_DIR / "scale").glob("*.yaml"))
STORED = sorted({path.parent for path in EXPERIMENTS.glob("*/results/*/*.json")})
SCHEMA = yaml.safe_load((Path(__file__).parents[1] / "sweeps" / "wandb" / "schema.json").read_text())
SWEEP_FILES = [
    path for path in sorted(EXPERIMENTS.glob("*/*.yaml")) if "program" in (yaml.safe_load(path.read_text()) or {})
]
IMAGES = [
    "datamodule.verify_checksums=false",
    "datamodule.num_train=8",
    "datamodule.num_val=4",
    "datamodule.num_test=4",
]
IMAGES += ["datamodule.batch_size=8"]
VOLUMES = ["datamodule.num_train=1", "datamodule.num_val=1", "datamodule.num_test=1", "datamodule.batch_size=1"]
# Crops that five levels divide, and the arguments that only the real set does without.
SCANS = ["datamodule.size=16", "+datamodule.num_train=1", "+datamodule.num_val=1", "+datamodule.num_test=1"]
SCANS += ["datamodule.batch_size=1"]
TINY_DATA = {
    "FoamCTDataModule": ["datamodule._target_=tests.fakes.TinyVolumes", *VOLUMES],
    "BratsDataModule": ["datamodule._target_=tests.fake_segmentation.TinyCases", *SCANS],
    "MNISTDataModule": IMAGES,
    "CIFAR10DataModule": IMAGES,
    "PhotographsDataModule": ["datamodule.size=8", *VOLUMES],
}


def as_module(program: str) -> str:
    return program.removesuffix(".py").replace("/", ".")


def published_of(key: str) -> Published:
    return read_published(EXPERIMENTS / key / "published.yaml")


def cells_of(key: str, *overrides: str) -> list[list[str]]:
    """The arguments of every cell."""
    sweep, others = with_overrides(read_sweep(EXPERIMENTS / key / "sweep.yaml"), list(overrides))
    return [[*(f"{name}={value}" for name, value in cell.items()), *others] for cell in grid(sweep)]


def experiment_and_scale(row: list[str]) -> tuple[str, str]:
    """The two arguments of a row that choose its experiment."""
    experiment, scale = (next(word for word in row if word.startswith(f"{name}=")) for name in ("experiment", "scale"))
    return experiment, scale


def rows_of(key: str) -> list[list[str]]:
    """The arguments of the cells that differ in more than the seed."""
    return cells_of(key, "seed=0")


def description(key: str, arguments: list[str]) -> dict[str, Any]:
    """What a table can ask of the run with these arguments."""
    if key not in TRAINED:
        return describe("", OmegaConf.to_container(OmegaConf.from_dotlist(arguments)))  # type: ignore[arg-type]
    config = compose_config([*arguments, "run_dir=x"])
    return describe(model_name(config), plain(config, resolve=True))


ROWS = [pytest.param(key, row, id=f"{key}-{i}") for key in TRAINED for i, row in enumerate(rows_of(key))]
# The others of a table mostly differ in a number.
FIRST_ROWS = [row if row.id.endswith("-0") else slow(*row.values, id=row.id) for row in ROWS]
QUOTED = [(key, row) for key in KEYS for row in published_of(key).rows if row.quote and not row.quoted_from]


def test_every_experiment_has_a_table() -> None:
    """An experiment of configs/ is run by some sweep unless it says "table: none"; published numbers have a sweep."""
    words = {(word, scale) for key in TRAINED for word, scale in map(experiment_and_scale, rows_of(key))}
    run = {compose_config(list(pair)).experiment for pair in words}
    paths = (CONFIG_DIR / "experiment").glob("*.yaml")
    tables = {path.stem: yaml.safe_load(path.read_text())["about"].get("table") for path in paths}
    assert run == {experiment for experiment, table in tables.items() if table != "none"}
    assert set(tables.values()) <= {None, "none"}
    assert sorted(path.parent.name for path in EXPERIMENTS.glob("*/published.yaml")) == KEYS


@pytest.mark.parametrize("path", SWEEP_FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wandbs_own_schema_accepts_every_sweep(path: Path) -> None:
    checker = FormatChecker(formats=())
    checker.checks("float")(lambda value: isinstance(value, float))
    checker.checks("integer")(lambda value: isinstance(value, int))
    content = yaml.safe_load(path.read_text())
    validator = Draft7Validator(SCHEMA, format_checker=checker)
    assert [error.message for error in validator.iter_errors(content)] == []
    # It refuses what it should.
    assert list(validator.iter_errors({**content, "method": "gird"}))
    sweep = read_sweep(path)
    program = ("${program}",) if sweep.program == "train.py" else ("-m", as_module(sweep.program))
    assert sweep.command == ("${env}", "${interpreter}", *program, "${args_no_hyphens}")
    assert sweep.metric is not None and (path.parents[2] / sweep.program).is_file()
    if sweep.method != "grid":
        assert SearchSpace(sweep).distributions and sweep.run_cap


def rows_and_scales() -> list[Any]:
    """Each row of each table at each scale; the slow tests have all but the first row."""
    return [
        pytest.param(row, scale, marks=() if i == 0 else pytest.mark.slow, id=f"{key}-{i}-{scale}")
        for key in TRAINED
        for i, row in enumerate(rows_of(key))
        for scale in SCALES
    ]


@pytest.mark.parametrize(("row", "scale"), rows_and_scales())
def test_every_row_composes_at_every_scale(row: list[str], scale: str) -> None:
    config = compose_config([*(word for word in row if not word.startswith("scale=")), f"scale={scale}", "run_dir=x"])
    check_config(config)
    OmegaConf.resolve(config)
    check_targets(config)


@pytest.mark.parametrize("key", KEYS)
def test_every_number_has_its_runs_and_every_run_its_numbers(key: str) -> None:
    table = published_of(key)
    # Two seeds tell as much as three.
    few = (
        ["seed=0,1"]
        if len(read_sweep(EXPERIMENTS / key / "sweep.yaml").parameters["seed"].get("values", [])) > 2
        else []
    )
    cells = [description(key, cell) for cell in cells_of(key, *few)]
    used = set()
    for i, j in table.entries():
        runs = [index for index, cell in enumerate(cells) if fits(cell, table.match(i, j))]
        assert runs, f"no run for {table.rows[i].label}, {table.columns[j].name}"
        seeds = [cells[index]["seed"] for index in runs]
        assert len(set(seeds)) == len(seeds), f"{table.rows[i].label}, {table.columns[j].name}: runs differ in more"
        used |= set(runs)
    assert used == set(range(len(cells)))
    # One run stands in one row only: no number is ours twice.
    for cell in cells:
        rows = {i for i, j in table.entries() if fits(cell, table.match(i, j))}
        assert len(rows) == 1


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: "/".join(folder.parts[-3::2]))
def test_stored_results_are_those_of_todays_configuration(folder: Path) -> None:
    """Where the configuration changed for a good reason, the table must be measured again."""
    changes = [change.replace("-", "=", 1) for change in folder.name.split("_")[1:]]
    plan = make_plan(EXPERIMENTS, folder.parts[-3], changes)
    assert plan.variant == folder.name
    current, outdated = load(folder, plan.cells())
    assert current and not outdated


@pytest.mark.parametrize("key", KEYS)
def test_every_published_number_has_its_quote(key: str) -> None:
    for row in published_of(key).rows:
        numbers = [value for value in (*row.values, row.tolerance) if value is not None]
        if numbers:
            assert row.quote is not None
            found = numbers_in(row.quote)
            assert all(number in found for number in numbers), (numbers, row.quote)


def numbers_in(text: str) -> list[float]:
    # "80+-5" is 80 and 5, "-1.6" is negative.
    tokens = re.findall(r"(?:(?<=\s)-)?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text)
    return [float(token) for token in tokens]


@pytest.mark.parametrize(("key", "row"), QUOTED)
def test_every_quote_stands_in_the_paper(key: str, row: Row) -> None:
    """Set PAPER_TEXTS to a folder with the papers' texts (\\*.txt): they are not part of this repository."""
    folder = os.environ.get("PAPER_TEXTS")
    if folder is None:
        pytest.skip("PAPER_TEXTS is not set")
    texts = [" ".join(path.read_text().split()) for path in sorted(Path(folder).glob("*.txt"))]
    assert texts, f"no texts in {folder}"
    assert row.quote is not None
    assert any(" ".join(row.quote.split()) in text for text in texts)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_mnist(folder)
    return write_cifar10(folder)


def tiny(row: list[str], images: Path, run_dir: Path) -> DictConfig:
    target = compose_config(row).datamodule["_target_"].rpartition(".")[2]
    assert target in TINY_DATA, f"expected what makes {target} tiny in TINY_DATA, got nothing"
    more = [f"datamodule.data_dir={images}"] if TINY_DATA[target] is IMAGES else []
    more += ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "logger=csv", f"run_dir={run_dir}"]
    return compose_config([*row, *TINY_DATA[target], *more])


@pytest.mark.parametrize(("key", "row"), FIRST_ROWS)
def test_every_row_takes_a_step(key: str, row: list[str], images: Path, tmp_path: Path) -> None:
    config = tiny(row, images, tmp_path)
    torch.manual_seed(0)
    task = instantiate(config.task, _partial_=True)(net=instantiate(config.model))
    datamodule = instantiate(config.datamodule)
    task.check_data(datamodule)
    datamodule.prepare_data()
    datamodule.setup("fit")
    before = [parameter.detach().clone() for parameter in task.net.parameters()]
    loss = task.losses(next(iter(datamodule.train_dataloader())))["loss"]
    loss.backward()
    task.optimizer(task.parameters()).step()
    after = list(task.net.parameters())
    assert torch.isfinite(loss) and all(torch.isfinite(parameter).all() for parameter in after)
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("key", "row"), ROWS)
def test_every_row_measures_its_columns(key: str, row: list[str], images: Path, tmp_path: Path) -> None:
    summary = train.train(tiny(row, images, tmp_path))
    table = published_of(key)
    run = describe(summary["model"], summary["config"])
    columns = {table.columns[j].metric for i, j in table.entries() if fits(run, table.match(i, j))}
    measured = {name for name, value in summary["metrics"].items() if value is not None}
    assert measured & columns and columns - measured <= OF_SOME_ROWS
    descriptions = from_plain(summary["metric_descriptions"])
    assert all(described(name, descriptions) for name in measured if name.startswith(("val/", "test/")))


# Metrics that only some networks of a table have, or that only the paper has.
OF_SOME_ROWS = {"test/reconstruction_error"}
