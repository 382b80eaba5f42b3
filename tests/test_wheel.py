"""The library that `pip install` makes of src: what it holds, what it needs, and that it works outside the checkout."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it for Python 3.10

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("ct", "invertible", "models")
# Import names that differ from the names of the packages.
IMPORTED_AS = {
    "hydra-core": "hydra",
    "pillow": "PIL",
    "scikit-image": "skimage",
}


def requirement_names(lines: list[str]) -> set[str]:
    """Import names of requirements such as ``torch>=2.11``."""
    names = {Requirement(line).name for line in lines if line[:1].isalpha()}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def top_level_imports(path: Path) -> Iterator[str]:
    """What importing a module of the library imports; names that begin with dots are relative to its package."""
    statements = list(ast.parse(path.read_text()).body)
    while statements:
        statement = statements.pop()
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield "." * statement.level + (statement.module or "")
        elif isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            statements += statement.orelse
        elif isinstance(statement, ast.With) and ast.unparse(statement.items[0]).startswith("extra("):
            continue
        elif not isinstance(statement, ast.FunctionDef):  # bodies of classes and branches run too
            for field in ("body", "orelse", "handlers", "finalbody"):
                statements += getattr(statement, field, [])


LIBRARY = [path for package in PACKAGES for path in sorted((ROOT / "src" / package).rglob("*.py"))]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_imports_its_declared_requirements_and_itself_only(path: Path) -> None:
    allowed = requirement_names(PROJECT["project"]["dependencies"]) | sys.stdlib_module_names
    for name in top_level_imports(path):
        level = len(name) - len(name.lstrip("."))
        if level == 0:
            assert name.split(".")[0] in allowed
            continue
        inside = path.relative_to(ROOT / "src").parts[:-1]
        target = [*inside[: len(inside) - level + 1], *name.lstrip(".").split(".")]
        own, other = inside[0], target[0]
        assert other == own or (own, other) in {("models", "invertible"), ("ct", "invertible")}


# Options of the template's configuration, paths of the checkout and its scripts.
TEMPLATE_ONLY = re.compile(
    r"\b(datamodule|trainer|src)\.\w|\b(callbacks|compile|experiment|model)=|\bnull\b|\bpython \w+\.py"
)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_of_the_library_name_only_what_is_installed(path: Path) -> None:
    """Docstrings and messages: users of the library have no configuration, no checkout and no scripts."""
    texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    found = [match[0] for text in texts if isinstance(text, str) for match in TEMPLATE_ONLY.finditer(text)]
    assert not found


def test_every_folder_of_the_library_is_installed() -> None:
    folders = {".".join(path.parent.relative_to(ROOT / "src").parts) for path in LIBRARY}
    expected = {"invertible_imaging", *(f"invertible_imaging.{folder}" for folder in folders)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_ranges_are_those_of_the_template() -> None:
    template = (ROOT / "requirements.txt").read_text().splitlines()
    for ranges in (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()):
        assert set(ranges) <= set(template)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-hosts.txt"])
def test_every_range_is_bounded_and_holds_the_version_that_was_tried(name: str) -> None:
    tried = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for line in (ROOT / name).read_text().splitlines():
        if line[:1].isalpha():
            requirement = Requirement(line)
            assert "<" in {specifier.operator for specifier in requirement.specifier}, f"expected a bound in {line}"
            assert tried[requirement.name] in requirement.specifier


USE = '''
import importlib.abc, pathlib, sys

class Blocked(importlib.abc.MetaPathFinder):
    """Refuses what the library does not declare."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import invertible_imaging

assert invertible_imaging.__version__ == "{version}"
assert "torch" not in sys.modules
folder = pathlib.Path(invertible_imaging.__file__).parent
assert (folder / "py.typed").exists()

import torch
from invertible_imaging.ct import CUBE_DIAGONAL, FoamSpec, ParallelBeam, draw_foam, filtered_backprojection, project
from invertible_imaging.invertible import set_backprop
from invertible_imaging.invertible.inspection import inspect
from invertible_imaging.models import DensityModel, Glow, IUNet, Lifted

assert "setuptools" not in sys.modules, "importing the library is to be cheap"
torch.manual_seed(0)
net = Lifted(in_channels=1, out_channels=1, body=IUNet(channels=(4, 8), num_couplings=2, spatial_dims=2))
set_backprop(net, "reversible")
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
x, target = torch.randn(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
losses = []
for _ in range(5):
    optimizer.zero_grad()
    loss = (net(x) - target).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
assert len(inspect(net, x, policies=("reversible", "stored"), repeats=1).blocks) > 4

flow = DensityModel(Glow(in_channels=1, num_levels=1, num_steps=1, hidden_channels=4), sample_shape=(1, 4, 4))
log_prob = flow.log_likelihood(torch.randint(256, (2, 1, 4, 4))).total
assert log_prob.shape == (2,) and flow.sample(3).shape == (3, 1, 4, 4)

import numpy as np
phantom = draw_foam(FoamSpec(num_balls=(2, 3), num_trial_points=1000), np.random.default_rng(0))
geometry = ParallelBeam(np.array(CUBE_DIAGONAL), num_views=4, detector_size=16)
sinogram = torch.from_numpy(project(phantom, geometry)).float()
assert filtered_backprojection(sinogram, geometry, size=8).shape == (8, 8, 8)

try:
    set_backprop(net, "memcnn")
    net(x)
except ImportError as error:
    assert "invertible-imaging[memcnn]" in str(error), error
else:
    raise AssertionError("memcnn is blocked")
'''


# What a user has already: five steps on batches of their own.
TRAINING_LOOP = """
import torch

optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
x, losses = torch.randn(2, 1, 16, 16), []
for _ in range(5):
    loss = net(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
"""


def library_example(name: str) -> str:
    """The code behind the comment ``<!-- library example -->`` of a page."""
    return (ROOT / name).read_text().partition("<!-- library example -->\n```python\n")[2].partition("```")[0]


def test_at_most_five_lines_bring_the_library_into_a_training_loop() -> None:
    lines = [line for line in library_example("README.md").splitlines() if line]
    assert 0 < len(lines) <= 5 and "set_backprop(net" in lines[-1]


@pytest.mark.slow
def test_the_installed_library_trains_outside_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    own_runs = shutil.ignore_patterns(".*", "outputs", "data", "wandb", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=own_runs)  # a build leaves folders beside pyproject.toml
    pip = [sys.executable, "-m", "pip"]
    build = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path / "dist", source]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    installed = {path.name for path in site.iterdir()}
    assert installed == {"invertible_imaging", wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"}
    folders = {path.name for path in (site / "invertible_imaging").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(PACKAGES)

    # torch comes from the environment of the tests, the checkout does not.
    (site / "torch.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    template = requirement_names((ROOT / "requirements.txt").read_text().splitlines())
    needed = requirement_names([*PROJECT["project"]["dependencies"], *(importlib.metadata.requires("torch") or [])])
    blocked = template - needed | {"FrEIA", "lightning", "src"}
    version = wheel.name.split("-")[1]
    program = USE.format(blocked=sorted(blocked), version=version)
    subprocess.run([python, "-c", program], check=True, cwd=tmp_path)
    for name, end in (("README.md", TRAINING_LOOP), ("docs/index.md", "assert images.shape == (4, 1, 28, 28)")):
        subprocess.run([python, "-c", f"{library_example(name)}\n{end}"], check=True, cwd=tmp_path)
