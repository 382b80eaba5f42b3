"""Trackers whose failures are warnings: the results of a run are in its own files, so no tracker may end it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyExperiment
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

# Methods that a trainer, a callback or train.py calls, besides those that begin with `log_`.
CALLS = ("describe", "go_on_from", "finish", "save", "finalize", "after_save_checkpoint")


def shielded(logger: Logger) -> Logger:
    """Return the logger, whose methods now warn where they would raise.

    The first failure of each method is reported. A logger that cannot be opened (no server, no place to write) stays
    closed.
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

    return shielded_call


def _shielded_experiment(get: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def experiment(self: Any) -> Any:
        try:
            return DummyExperiment() if self._closed else get(self)
        except Exception as error:
            _warn(self, "experiment", error)
            self._closed = True
            return DummyExperiment()

    return experiment


def _warn(logger: Any, call: str, error: Exception) -> None:
    if not logger._closed and call not in logger._warned:
        logger._warned.add(call)
        name = f"{type(logger).__name__}.{call}"
        rank_zero_warn(f"{name} failed, but the run continues: {type(error).__name__}: {error}")
