"""The pages of the library: python -m sphinx -W docs docs/_build. Nothing is fetched while they are built."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parents[1]
PACKAGES = ("invertible", "models", "ct")


def import_as_installed() -> None:
    """Make the checkout's src importable under the name that it is installed by."""
    folder = ROOT / "src"
    spec = importlib.util.spec_from_file_location(
        "invertible_imaging", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


import_as_installed()
EXPORTED = {p: vars(importlib.import_module(f"invertible_imaging.{p}")) for p in PACKAGES}

project = "invertible_imaging"
version = release = sys.modules["invertible_imaging"].__version__
html_title = f"invertible-imaging {version}"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
exclude_patterns = ["_build"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
add_module_names = False
default_role = "py:obj"
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"


def plain_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Stars, bars and underscores of a docstring mean themselves outside of backticks and examples."""
    if what in ("data", "attribute", "property"):
        lines[0] = f": {lines[0]}"  # or napoleon takes what stands before a colon for a type
    in_example = False
    for index, line in enumerate(lines):
        if line == "Attributes:" and "Args:" not in lines:  # of dataclasses, which are the arguments
            line = "Args:"
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if not in_example:
            parts = re.split(r"(``.*?``|`.*?`)", line)
            parts[::2] = [re.sub(r"[*|]|_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
            # One letter and a full stop would begin a list.
            lines[index] = re.sub(r"(?<=: )(\w)\.$", r"\1\\.", "".join(parts))


def skip(app: Sphinx, what: str, name: str, obj: Any, is_skipped: bool, options: Any) -> bool | None:
    """Of a module, show what its package exports; of a named tuple, not the fields, which are its attributes."""
    if what == "module":
        return not any(name in exported for exported in EXPORTED.values())
    return True if type(obj).__name__ == "_tuplegetter" else None


def link_exported(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Link the bare name of something exported, wherever it is written."""
    name = node.get("reftarget", "")
    for exported in EXPORTED.values():
        full_name = f"{getattr(exported.get(name), '__module__', '')}.{name}"
        if full_name in env.domains["py"].objects and node.get("refdomain") == "py":
            node["reftarget"] = full_name
            return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", full_name, node, content)
    return None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", plain_text, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", link_exported)
