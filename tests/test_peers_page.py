"""The page that sets FrEIA and iunets beside this library: each name of theirs has a row, each of ours exists."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import src.invertible
import src.models
from src.models import IUNet

PAGE = Path("docs/freia_and_iunets.md")
# What FrEIA's main branch exports beyond its release 0.2, at the commit that the page names.
MAIN_BRANCH = {
    "FrEIA.modules": {"LinearSpline", "RationalQuadraticSpline", "ElementwiseRationalQuadraticSpline"},
    "FrEIA.framework": {"collect_nodes", "FeedForwardNode"},
    "FrEIA.distributions": {"StandardNormalDistribution", "PushForwardDistribution", "PullBackDistribution"},
}
IUNETS_METHODS = {
    "decode",
    "decoder_inverse",
    "encode",
    "encoder_inverse",
    "get_padding",
    "inverse",
    "pad",
    "print_layout",
    "revert_padding",
}
IUNETS_OPTIONS = {
    "architecture",
    "channel_mixing_freq",
    "channel_mixing_kwargs",
    "channel_mixing_method",
    "channels",
    "create_module_fn",
    "dim",
    "disable_custom_gradient",
    "learnable_channel_mixing",
    "learnable_resampling",
    "module_kwargs",
    "padding_mode",
    "padding_value",
    "resampling_init",
    "resampling_kwargs",
    "resampling_method",
    "resampling_stride",
    "revert_input_padding",
    "verbose",
}


def sections() -> dict[str, list[list[str]]]:
    """The cells of each row, by the title of the section."""
    found: dict[str, list[list[str]]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            found[line[3:]] = rows = []
        elif line.startswith("| `"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


SECTIONS = sections()
ROWS = [(title, row) for title, rows in SECTIONS.items() for row in rows]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_column(title: str) -> list[str]:
    return [name for row in SECTIONS[title] for name in named(row[0])]


def exported(module: str) -> set[str]:
    """What the installed FrEIA exports, without its classes' imports."""
    try:
        package: Any = importlib.import_module(module)
    except ModuleNotFoundError:
        return set()
    return set(getattr(package, "__all__", MAIN_BRANCH[module]))


def test_every_name_of_freia_has_one_row() -> None:
    pytest.importorskip("FrEIA")
    modules, framework = (first_column(title) for title in ("FrEIA.modules", "FrEIA.framework, FrEIA.distributions"))
    known = {name: exported(name) | extra for name, extra in MAIN_BRANCH.items()}
    assert sorted(modules) == sorted(known["FrEIA.modules"])
    assert sorted(framework) == sorted(known["FrEIA.framework"] | known["FrEIA.distributions"])


def test_every_option_and_method_of_iunets_has_one_row() -> None:
    assert sorted(first_column("iunets.iUNet")) == sorted(IUNETS_OPTIONS | IUNETS_METHODS)
    iunets = pytest.importorskip("iunets", reason="github.com/cetmann/iunets is not on the import path")
    assert set(inspect.signature(iunets.iUNet).parameters) - {"kwargs"} == IUNETS_OPTIONS
    assert {name for name in vars(iunets.iUNet) if not name.startswith("_")} - {"forward"} == IUNETS_METHODS


@pytest.mark.parametrize(("title", "row"), ROWS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_what_a_row_names_exists(title: str, row: list[str]) -> None:
    _, ours, _, tests = row
    for name in named(ours):
        found = hasattr(src.invertible, name) or hasattr(src.models, name)
        if title.startswith("iunets"):
            found = found or hasattr(IUNet, name) or name in inspect.signature(IUNet).parameters or name == "padding"
        assert found, name
    assert tests or not ours
    for test in named(tests):
        file, function, case = re.fullmatch(r"(\S+\.py)::(\w+)(?:\[(.+)\])?", test).groups()  # type: ignore[union-attr]
        text = Path(file).read_text(encoding="utf-8")
        assert f"def {function}(" in text, test
        assert case is None or f'"{case}"' in text, test


def test_the_port_runs_on_both_sides() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## A port")[2].partition("## ")[0]
    theirs, ours = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(ours.replace("invertible_imaging", "src"), names)
    x = (names["x_a"], names["x_b"])
    again = names["net"].forward_and_logdet(x, names["label"])
    for found, expected in zip((*again[0], again[1]), (*names["z"], names["logdet"]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    framework = pytest.importorskip("FrEIA.framework")
    modules = importlib.import_module("FrEIA.modules")
    shapes = [part.shape for part in (*x, names["logdet"])]
    exec(theirs, names | {"Ff": framework, "Fm": modules}, found := {})
    assert [found[name].shape for name in ("x_a", "x_b", "logdet")] == shapes
