"""Marks of test cases."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """Return a case of ``parametrize`` that only ``-m slow`` runs."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


def gpu(*values: Any, count: int = 1, id: str | None = None) -> Any:
    """Return a case of ``parametrize`` that only ``-m gpu`` runs, where ``count`` CUDA devices are."""
    return pytest.param(*values, id=id, marks=pytest.mark.gpu(count))


def on_devices(cases: Iterable[Any], fast: Container[Any] = ()) -> list[Any]:
    """Return each case with ``cpu`` and with ``cuda``, for ``parametrize((..., "device"), ...)``.

    Where there is no card, only the run on the CPU shows that a test of a card can pass. It is slow but for ``fast``.
    """
    listed = list(cases)
    on_cpu = [(pytest.param if case in fast else slow)(case, "cpu") for case in listed]
    return on_cpu + [gpu(case, "cuda") for case in listed]
