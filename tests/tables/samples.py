"""A small published table and results of runs."""

from __future__ import annotations

from typing import Any

PUBLISHED = """
title: "A & B, Table 1: sharper images"
source: "A and B (2020), Table 1"
setting: "20 images of 256²"
head: [levels, width]
columns:
  - {name: old PSNR, metric: test/psnr, better: max, digits: 2, unit: dB, match: {model: old}}
  - {name: new PSNR, metric: test/psnr, better: max, digits: 2, unit: dB, match: {model: new}}
  - {name: gain, difference: new PSNR, digits: 1}
rows:
  - {label: [4, narrow], match: {network.width: 8}, values: [10.0, 12.0, null], quote: "4 narrow 10.0 12.0"}
  - label: [8, wide]
    match: {network.width: 16}
    values: [11.0, 11.5, -0.5]
    minus: narrow
    quote: "8 wide 11.0 11.5 -0.5"
  - {label: [9, quoted], values: [9.0, null, null], tolerance: 1, quote: "9 quoted 9+-1"}
here: {levels: network.levels}
differs:
  all: >
    Photographs
    are ours.
  small: 16 images.
"""


def result(model: str, width: int, seed: int, psnr: float | None, levels: int = 4) -> dict[str, Any]:
    return {
        "cell": f"{model}-{width}-{seed}",
        "digest": "12345678",
        "model": model,
        "seed": seed,
        "scale": "small",
        "metrics": {"test/psnr": psnr},
        "config": {"network": {"width": width, "levels": levels}, "seed": seed},
        "num_parameters": 1000 * width,
        "step_time_s": 0.0123,
        "peak_memory_bytes": 2**30,
        "total_time_s": 90.0 + 60 * seed,
        "finished": f"2026-11-2{seed}T10:00:00+00:00",
        "git_commit": "0123456789abcdef",
        "hardware": {"cpu": "A CPU", "cores": 2, "threads": 1, "gpus": []},
        "versions": {"torch": "2.14.1", "python": "3.11.7"},
    }


RESULTS = [
    result("old", 8, 0, 20.0),
    result("old", 8, 1, 21.0),
    result("new", 8, 0, 22.0),
    result("new", 8, 1, 23.0),
    result("old", 16, 0, 25.0, levels=6),
    result("new", 16, 0, 24.5, levels=6),
    result("new", 99, 0, 99.0),  # of no row
]
