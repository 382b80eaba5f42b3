"""The steps in order of their value, each with the seconds that it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# With less time than this, a step would only import torch.
LEAST_S = 15.0


@dataclass(frozen=True)
class Step:
    """A part of the suite.

    Attributes:
        name: of the module in this package that measures it, or of the training.
        seconds: its limit.
        overrides: of train.py; empty for a module.
        data: the folder in ``--data`` that a training needs.
    """

    name: str
    seconds: float
    overrides: tuple[str, ...] = ()
    data: str = ""


CIFAR10 = ("datamodule=cifar10", "datamodule.download=false", "datamodule.num_workers=4", "datamodule.pin_memory=true")


def training(name: str, minutes: float, *overrides: str, data: str = "") -> Step:
    """Return a training of some minutes, with three quarters of a minute for imports, validation and test."""
    budget = ("callbacks=time_budget", f"callbacks.time_budget.minutes={minutes:g}", "task/scheduler=none")
    return Step(name, 60 * minutes + 45, (*overrides, *budget, "trainer.max_epochs=100000", "logger=csv"), data)


def on_cifar10(name: str, minutes: float, experiment: str, model: str, *overrides: str) -> Step:
    """Return a training on CIFAR-10."""
    chosen = (f"experiment={experiment}", "scale=medium", f"model={model}", *CIFAR10, *overrides)
    return training(name, minutes, *chosen, data="cifar-10-batches-py")


PLAN = (
    Step("environment", 25),
    Step("gradients", 50),
    Step("tests", 120),
    Step("operations", 75),
    Step("busy", 45),
    Step("engine", 120),
    Step("largest", 75),
    Step("scans", 30),
    training("train_ct_64", 1.0, "experiment=ct_postproc", "scale=medium", "trainer.precision=bf16-mixed"),
    on_cifar10("train_glow", 0.7, "iconvnet_table2", "glow", "~callbacks.images"),
    on_cifar10("train_iunet_flow", 0.7, "iconvnet_table2", "iunet_flow", "~callbacks.images"),
    on_cifar10("train_iconvnet_flow", 0.7, "iconvnet_table2", "iconvnet_flow", "~callbacks.images"),
    on_cifar10("train_realnvp", 0.5, "iconvnet_table2", "realnvp", "~callbacks.images"),
    on_cifar10("train_convnet", 0.4, "iconvnet_table1", "convnet"),
    on_cifar10("train_iconvnet", 0.5, "iconvnet_table1", "iconvnet"),
)


def chosen(names: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps of these names, or all without names.

    Raises:
        ValueError: for a name that no step has.
    """
    known = {step.name: step for step in PLAN}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"expected steps among {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(known[name] for name in names) or PLAN


def within(step: Step, left_s: float) -> Step | None:
    """Return the step with no more time than is left; None if that is too little."""
    if left_s < LEAST_S:
        return None
    return replace(step, seconds=min(step.seconds, left_s))
