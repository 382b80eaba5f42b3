"""Reading sweep files, expanding them, building their command lines: as W&B does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.composition import CONFIG_DIR, parse_overrides
from src.sweeps.command import command_line, for_people
from src.sweeps.grid import grid
from src.sweeps.sweep import Objective, Sweep, read_sweep, with_overrides
from src.utils.errors import ConfigError
from src.utils.reading import FileError
from tests.sweeps.programs import sweep_of

WANDB = Path(__file__).with_name("wandb")
VALID: dict[str, Any] = {"program": "train.py", "method": "grid", "parameters": {"seed": {"values": [0, 1]}}}


def read(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**VALID, **changes}))
    return read_sweep(path)


def test_a_grid_is_expanded_in_the_order_of_wandbs_own_code() -> None:
    expected = json.loads((WANDB / "grid.json").read_text())
    found = grid(read_sweep(WANDB / "grid.yaml"))
    assert json.dumps(found) == json.dumps(expected)  # as text: True, 1 and 1.0 are equal
    assert len(found) > 20


def test_a_sweep_is_read(tmp_path: Path) -> None:
    sweep = read(tmp_path, metric={"name": "val/psnr", "goal": "maximize"}, run_cap=3)
    assert sweep.metric == Objective("val/psnr", "maximize") and sweep.run_cap == 3
    assert sweep.command == ("${env}", "${interpreter}", "${program}", "${args}")
    one = read(tmp_path, parameters={"b": {"values": [1]}, "a": {"min": 0, "max": 1}, "c": {"value": 3}})
    # One value in a list may become several on the command line: it names the cell.
    assert one.varied == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methd": "grid"}, "did you mean 'method'"),
        ({"program": None}, "expected program in"),
        ({"method": "gird"}, "expected method to be one of grid, random, bayes"),
        ({"parameters": {}}, "expected parameters in"),
        ({"parameters": {"seed": 3}}, r"expected parameters\.seed in the form"),
        ({"parameters": {"seed": {"values": []}}}, r"expected parameters\.seed to have value, values, or min and max"),
        ({"parameters": {"a": {"parameters": {"b": {"value": 1}}}}}, r"expected dotted names \(a\.<key>\)"),
        ({"metric": {"goal": "maximize"}}, "expected metric {name"),
        ({"metric": {"name": "x", "goal": "max"}}, "expected metric {name"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3}}, "expected no early_terminate"),
    ],
)
def test_what_is_no_sweep_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **changes)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="expected a sweep file"):
        read_sweep(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(FileError, match=r"expected a sweep file, got '.*bad\.yaml'"):
        read_sweep(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(FileError, match=r"expected a sweep file, got '.*list\.yaml': .* got list"):
        read_sweep(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    "spec", [{"distribution": "normal"}, {"min": 0.0, "max": 1.0}, {"values": [1], "probabilities": [1]}]
)
def test_a_grid_needs_finite_lists(spec: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected value, values, int_uniform or q_uniform for 'x'"):
        grid(read(tmp_path, parameters={"x": spec}))


def test_the_command_line_restricts_the_sweep_and_goes_to_every_cell(tmp_path: Path) -> None:
    sweep = read(tmp_path, parameters={"seed": {"values": [0, 1]}, "scale": {"value": "small"}})
    changed, others = with_overrides(sweep, ["seed=3,4", "scale=paper", "trainer=gpu", "+a.b={c: 1}", "~logger"])
    assert grid(changed) == [{"scale": "paper", "seed": 3}, {"scale": "paper", "seed": 4}]
    assert others == ["trainer=gpu", "+a.b={c: 1}", "~logger"]
    assert changed.varied == ("seed",)
    with pytest.raises(ConfigError, match=r"expected a single value .* got 'sede=1,2'; did you mean 'seed'"):
        with_overrides(sweep, ["sede=1,2"])
    with pytest.raises(ConfigError, match="expected key=value, got 'seed'"):
        with_overrides(sweep, ["seed"])
    for text in ("seed=interval(0,1)", "seed=glob(*)"):
        with pytest.raises(ConfigError, match="expected values or a range, got 'seed="):
            with_overrides(sweep, [text])
    assert grid(with_overrides(sweep, ["seed=range(2,4)", "scale=paper"])[0])[1] == {"scale": "paper", "seed": 3}


def test_the_command_line_is_the_one_of_wandbs_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb import wandb_agent

    started: list[list[str]] = []
    monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: started.append(command) or SentProcess())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "x")
    for command in (
        ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
        ["${env}", "A=${envvar:HOME}", "python", "${program}", "--flag", "${args}"],
        ["${interpreter}", "${program}", "${args_no_boolean_flags}", "${args_no_equals}", "${unknown}"],
        ["${args_append_hydra}", "${args_override_hydra}", "${args_json}", "x-${envvar:HOME}-${envvar:NOWHERE}"],
    ):
        sweep = sweep_of("train.py", lr=[1e-3], on=[True], off=[False], name=["a b"])
        sweep = Sweep(**{**sweep.__dict__, "command": tuple(command)})
        parameters = grid(sweep)[0]
        agent = wandb_agent.Agent(api=None, queue=None)
        agent._sweep_command = list(command)
        values = {name: {"value": value} for name, value in parameters.items()}
        agent._command_run({"type": "run", "run_id": "x", "program": "train.py", "args": values})
        assert command_line(sweep, parameters) == started[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("None", "None"),
        ("1e-3", "1e-3"),  # YAML reads it as a string
        ("a,b", "'a,b'"),
        ("a=b", "'a=b'"),
        ("it's", r"'it\'s'"),
        ("'1'", "'1'"),
        ([1, None, "2", "a b"], "[1, null, '2', a b]"),
        ({"a": None, "b": "1,2"}, "{a: null, b: '1,2'}"),
    ],
)
def test_hydra_reads_a_value_as_the_sweep_means_it(value: Any, text: str) -> None:
    sweep = Sweep("train.py", "grid", {}, ("${args_no_hyphens}",), None, None, ())
    assert command_line(sweep, {"x": value}) == [f"x={text}"]
    (override,) = parse_overrides([f"x={text}"])
    assert override.value() == {"1e-3": 1e-3, "'1'": "1"}.get(str(value), value)


def test_a_string_of_the_command_line_keeps_the_quotes_that_it_needs() -> None:
    sweep = sweep_of("train.py", x=[0])
    for text, values in {
        "x='a,b'": ["'a,b'"],
        "x='1',\"a\"": ["'1'", "a"],
        "x=null": [None],
        "x='unet'": ["unet"],
    }.items():
        assert [cell["x"] for cell in grid(with_overrides(sweep, [text])[0])] == values


@pytest.mark.parametrize("page", ["docs/commands.md", "experiments/README.md"])
def test_a_sweep_of_the_pages_is_in_the_project_of_its_runs(page: str) -> None:
    project = yaml.safe_load((CONFIG_DIR / "logger" / "wandb.yaml").read_text())["wandb"]["project"]
    (command,) = re.findall(r"^wandb sweep .+", (CONFIG_DIR.parent / page).read_text(), re.MULTILINE)
    assert f" --project {project} " in command


class SentProcess:
    """What the agent keeps of a process."""

    last_sigterm_time = None


def test_a_command_for_people() -> None:
    assert for_people(["/usr/bin/env", "python", "train.py", "a=[1, 2]"]) == "python train.py 'a=[1, 2]'"
