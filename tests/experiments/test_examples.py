"""The examples in the READMEs of experiments run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from src.sweeps.plan import EXPERIMENTS

EXAMPLES = [path for path in sorted(EXPERIMENTS.glob("*/README.md")) if "```python" in path.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_runs_and_prints_what_it_says(path: Path, capsys: pytest.CaptureFixture) -> None:
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        said = re.findall(r"print\(.*\)  # (.*)", code)
        values: dict[str, Any] = {}
        exec(code, values)
        assert capsys.readouterr().out.splitlines() == said
