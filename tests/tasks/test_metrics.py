"""Descriptions of metrics: what is measured is described, and what is described is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import train
from src.config.composition import compose_config
from src.runs.monitor import LATEST, STEP, check_monitor, names
from src.tasks.metrics import (
    CALLBACK_METRICS,
    TASK_METRICS,
    Metric,
    described,
    from_plain,
    metrics_of_config,
    to_plain,
)
from tests.fakes import tiny_overrides

KNOWN = {STEP: LATEST, **names([*TASK_METRICS["reconstruction"], *CALLBACK_METRICS])}


def test_a_metric_is_found_by_each_of_its_names() -> None:
    segmentation = TASK_METRICS["segmentation"]
    for name in ("dice", "val/dice", "test/dice_wt"):
        assert described(name, segmentation) is segmentation[0]
    assert described("dices", segmentation) is described("val/psnr_fbp", segmentation) is None
    errors = [*TASK_METRICS["classification"], *CALLBACK_METRICS]
    assert described("test/reconstruction_error", errors) is errors[2]
    assert described("train/reconstruction_error", errors) is CALLBACK_METRICS[1]


def test_a_value_is_printed_with_its_digits() -> None:
    psnr = Metric("psnr", "PSNR", "dB", "max", 2)
    assert psnr.heading == "PSNR (dB)" and Metric("ssim").heading == "ssim"
    assert [psnr.text(20.5), psnr.text(6.5, sign=True), psnr.text(None), psnr.text(1e-9)] == [
        *("20.50", "+6.50", "-", "1.0e-09"),
    ]
    accuracy = TASK_METRICS["classification"][0]
    assert (accuracy.heading, accuracy.text(0.5)) == ("accuracy (%)", "50.00")


def test_descriptions_survive_the_summary_and_what_describes_nothing_is_left_out() -> None:
    own = [Metric("fid", "FID", "%", "min", 1, factor=100.0), Metric("dice", per_region=True)]
    assert from_plain(json.loads(json.dumps(to_plain(own)))) == tuple(own)
    hostile = [None, {}, {"name": 3}, {"name": "a", "unit": [1], "better": "up", "digits": 10**9, "factor": "2"}]
    assert from_plain(hostile) == (Metric("a"),) and from_plain({"name": "a"}) == from_plain(None) == ()


def test_the_tables_are_read_without_torch() -> None:
    code = "import sys, src.tasks.metrics; assert not {'torch', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_metrics_of_a_task_are_known_by_its_configuration() -> None:
    for task in TASK_METRICS:
        config: dict[str, Any] = {"task": {"_target_": f"src.tasks.{task}.Whatever"}}
        assert metrics_of_config(config) == (*TASK_METRICS[task], *CALLBACK_METRICS)
    for other in ({"task": {"_target_": "mine.Task"}}, {"task": {}}, {"task": "mine"}, {}):
        assert metrics_of_config(other) == CALLBACK_METRICS


@pytest.mark.parametrize(
    "monitor",
    [("val/psnr", "max"), ("val/psnr_fbp", "min"), ("train/loss", "min"), ("step", "max"), ("time/step_s", "min")],
)
def test_a_metric_that_is_measured_can_be_monitored(monitor: tuple[str, str]) -> None:
    check_monitor("monitor.metric", *monitor, KNOWN)


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        ("val/psnr", "min", r"expected monitor\.mode=max for monitor\.metric=val/psnr, got 'min'"),
        ("step", "min", r"expected monitor\.mode=max for monitor\.metric=step"),
        ("val/psnr_fbp", "most", r"expected monitor\.mode=max or min for monitor\.metric=val/psnr_fbp, got 'most'"),
        (
            "val/pnsr",
            "max",
            r"expected monitor\.metric to be a metric that the run measures, got 'val/pnsr'; did you mean 'val/psnr'",
        ),
        ("test/psnr", "max", r"got 'test/psnr'; did you mean"),
        ("psnr", "max", r"got 'psnr'"),
    ],
)
def test_a_monitor_that_cannot_work_is_refused(metric: str, mode: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_monitor("monitor.metric", metric, mode, KNOWN)


def test_a_wrong_monitor_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected monitor\.mode=max for monitor\.metric=val/psnr, got 'min'"):
        train.train(compose_config(tiny_overrides(tmp_path / "run", "monitor.mode=min")))
    assert not (tmp_path / "run").exists()
