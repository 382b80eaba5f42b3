"""What is measured: name, label, unit, direction and digits of every metric, described once.

The tasks, their reports, the check of ``monitor``, the page of compare.py and the tables of papers read these
descriptions. This module imports no torch, so that compare.py starts fast.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from src.utils.reading import finite_number

Better = Literal["max", "min"]


@dataclass(frozen=True)
class Metric:
    """One number that a run measures.

    Attributes:
        name: without its stage: ``psnr`` of ``val/psnr`` and ``test/psnr``. Callbacks name theirs in full.
        label: for people; by default the name.
        unit: in which it is printed; "" without one.
        better: whether ``max`` or ``min`` is better; None: neither.
        digits: behind the decimal point.
        stages: in which it is measured.
        per_region: whether ``<name>_<region>`` is measured too.
        factor: from the number to its unit: 100 for a fraction that is printed in %.
    """

    name: str
    label: str = ""
    unit: str = ""
    better: Better | None = None
    digits: int = 4
    stages: tuple[str, ...] = ("val", "test")
    per_region: bool = False
    factor: float = 1.0

    @property
    def heading(self) -> str:
        """The label with the unit."""
        return f"{self.label or self.name} ({self.unit})" if self.unit else self.label or self.name

    def full_names(self) -> list[str]:
        """Return the names under which it is logged."""
        return [self.name] if "/" in self.name else [f"{stage}/{self.name}" for stage in self.stages]

    def describes(self, full_name: str) -> bool:
        """Whether it is the metric that is logged as ``full_name``."""
        leaf = full_name.rpartition("/")[2]
        return self.name in (full_name, leaf) or (self.per_region and leaf.startswith(f"{self.name}_"))

    def text(self, value: float | None, *, sign: bool = False) -> str:
        """Return a value as it is printed."""
        return "-" if value is None else decimal(self.factor * value, self.digits, sign=sign)


ALWAYS = ("train", "val", "test")
LOSS = Metric("loss", better="min", stages=ALWAYS)
# By the module of the task under src/tasks. The first one of each is the task's headline.
TASK_METRICS: dict[str, tuple[Metric, ...]] = {
    "reconstruction": (
        Metric("psnr", "PSNR", "dB", "max", 2),
        Metric("ssim", "SSIM", "", "max"),
        LOSS,
        Metric("psnr_fbp", "PSNR of the FBP", "dB", None, 2),
        Metric("ssim_fbp", "SSIM of the FBP"),
        Metric("psnr_input", "PSNR of the input", "dB", None, 2),
        Metric("ssim_input", "SSIM of the input"),
    ),
    "segmentation": (
        Metric("dice", "Dice", "", "max", 3, per_region=True),
        Metric("sensitivity", "sensitivity", "", "max", 3, per_region=True),
        Metric("dice_present", "Dice where present", "", "max", 3, per_region=True),
        Metric("hausdorff95", "Hausdorff 95 %", "voxels", "min", 3, per_region=True),
        LOSS,
    ),
    "classification": (
        Metric("accuracy", "accuracy", "%", "max", 2, stages=ALWAYS, factor=100.0),
        Metric("loss", "cross entropy", "nats", "min", stages=ALWAYS),
        Metric("reconstruction_error", "‖x − Φ⁻¹Φx‖ / ‖x‖, mean", "", "min", stages=("test",)),
        Metric("reconstruction_error_max", "‖x − Φ⁻¹Φx‖ / ‖x‖, worst", "", "min", stages=("test",)),
    ),
    "density": (
        Metric("bits_per_dim", "negative log-likelihood", "bits/dim", "min"),
        Metric("prior", "prior", "bits/dim", stages=ALWAYS),
        Metric("logdet", "log-determinant", "bits/dim", stages=ALWAYS),
        Metric("dequantisation", "dequantisation", "bits/dim", stages=ALWAYS),
        Metric("loss", "negative log-likelihood", "bits/dim", "min", stages=("train",)),
    ),
    "sparsity": (
        Metric("loss", "‖Dx‖₁ / n, learned", "", "min", stages=ALWAYS),
        Metric("pixel_shuffle", "‖Dx‖₁ / n, pixel shuffle"),
        Metric("haar", "‖Dx‖₁ / n, Haar"),
        Metric("haar_overlap", "smallest |⟨learned, Haar⟩|", "", "max", stages=("test",)),
        Metric("unmixing_mse_exp", "channels mixed and back, MSE, exp", "", "min", 2, stages=("test",)),
        Metric("unmixing_mse_cayley", "channels mixed and back, MSE, Cayley", "", "min", 2, stages=("test",)),
        Metric("unmixing_mse_householder", "channels mixed and back, MSE, Householder", "", "min", 2, stages=("test",)),
    ),
}
# What this project's callbacks measure beside a task.
CALLBACK_METRICS = (
    Metric("val/invertibility_error", better="min"),
    Metric("train/reconstruction_error", better="min"),
    Metric("time/step_s", unit="s", better="min"),
    Metric("memory/peak_gib", unit="GiB", better="min"),
)


def described(full_name: str, metrics: Iterable[Metric]) -> Metric | None:
    """Return the most specific description of the metric that is logged as ``full_name``; None if it is unknown."""
    fitting = [metric for metric in metrics if metric.describes(full_name)]
    return max(fitting, key=lambda metric: len(metric.name), default=None)


def metrics_of_config(config: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Return what a run of this project's tasks and callbacks measures, by its configuration.

    Of another task, only the callbacks' metrics are known.
    """
    task = config.get("task")
    target = str(task.get("_target_", "")) if isinstance(task, Mapping) else ""
    module = target.rpartition(".")[0].removeprefix("src.tasks.")
    return (*TASK_METRICS.get(module, ()), *CALLBACK_METRICS)


def decimal(value: float, digits: int, *, sign: bool = False) -> str:
    """Return a number with so many digits behind the point; a very small one in scientific notation."""
    value = value or 0.0  # without the sign of a negative zero
    style = ".1e" if value and abs(value) < 0.5 * 10**-digits else f".{digits}f"
    return format(value, f"+{style}" if sign else style)


def to_plain(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Return descriptions as summary.json has them; the names of its metrics tell the stages."""
    return [{key: value for key, value in asdict(metric).items() if key != "stages"} for metric in metrics]


def from_plain(content: Any) -> tuple[Metric, ...]:
    """Return the descriptions in a summary.json from anywhere; entries that describe no metric are left out."""
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    return tuple(_metric(item) for item in items if isinstance(item.get("name"), str))


def _metric(item: dict[str, Any]) -> Metric:
    texts = {key: item[key] for key in ("name", "label", "unit") if isinstance(item.get(key), str)}
    better = item["better"] if item.get("better") in ("max", "min") else None
    digits = item.get("digits")
    known_digits = digits if type(digits) is int and 0 <= digits <= 12 else Metric.digits
    factor = finite_number(item.get("factor")) or Metric.factor
    return Metric(**texts, better=better, digits=known_digits, per_region=item.get("per_region") is True, factor=factor)
