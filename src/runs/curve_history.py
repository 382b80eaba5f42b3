"""What a checkpoint remembers of the curves: written by the callback that keeps them, read where runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Every metric over the steps.
Points = list[tuple[int, float]]
History = dict[str, Points]
# Under which Lightning keeps the callback's state.
STATE_KEY = "Curves"


def to_state(history: History, running: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the curves, and what the epoch under way has brought so far, as plain containers."""
    return {
        "history": {name: [list(point) for point in points] for name, points in history.items()},
        "running": {name: list(values) for name, values in running.items()},
    }


def from_state(state: Mapping[str, Any]) -> tuple[History, dict[str, list[float]]]:
    """Return what `to_state` was called with."""
    history = {name: [(step, value) for step, value in points] for name, points in state["history"].items()}
    return history, {name: list(values) for name, values in state["running"].items()}


def history_of_checkpoint(checkpoint: Mapping[str, Any]) -> History:
    """Return the curves of a checkpoint; empty if its run kept none."""
    state = checkpoint.get("callbacks", {}).get(STATE_KEY)
    return {} if state is None else from_state(state)[0]
