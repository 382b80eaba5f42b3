"""Marks of test cases."""

from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """Return a case of ``parametrize`` that only ``-m slow`` runs."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)
