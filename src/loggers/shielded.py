"""Trackers whose failure is a warning: what a run comes to is in its own files, and no server or disk may cost it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

# What a trainer, a callback or train.py calls; beside these, all that begins with `log_`.
CALLS = ("describe", "go_on_from", "finish", "save", "finalize", "after_save_checkpoint")


def shielded(logger: Logger) -> Logger:
    """Return the logger, of a class whose calls warn where those of its own class raise.

    A call that fails is tried again at the next time, and warned of once. A logger that cannot be opened (no server, no
    place to write) stays closed.
    """
    kind = type(logger)
    attributes: dict[str, Any] = {"_warned": set(), "_closed": False}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if inspect.isfunction(member) and (name in CALLS or name.startswith("log_")):
            attributes[name] = _shielded_call(member)
        elif name == "experiment" and isinstance(member, property) and member.fget is not None:
            attributes[name] = property(_shielded_experiment(member.fget))
    logger.__class__ = type(kind.__name__, (kind,), attributes)
    return logger


def _shielded_call(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def shielded_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(self, *args, **kwargs)
        except Exception as error:
            _warn(self, call.__name__, error)
            return None

    return shielded_call


def _shielded_experiment(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def experiment(self: Any) -> Any:
        if not self._closed:
            try:
                return get(self)
            except Exception as error:
                _warn(self, "experiment", error)
                self._closed = True
        return DummyExperiment()

    return experiment


def _warn(logger: Any, call: str, error: Exception) -> None:
    if not logger._closed and call not in logger._warned:
        logger._warned.add(call)
        rank_zero_warn(f"{type(logger).__name__}.{call} failed, the run goes on: {type(error).__name__}: {error}")
