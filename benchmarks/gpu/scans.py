"""The simulation of one CT scan: the medium scale's, and the paper's."""

import numpy as np

from benchmarks.gpu.recording import Recorder
from src.ct.foam import FoamSpec
from src.ct.simulation import ScanSpec, SimulationSpec, simulate

SCANS = {
    "64³": (FoamSpec((300, 300), max_radius=0.2, min_radius=0.04), ScanSpec(64, 24, photon_count=2000.0)),
    "256³": (
        FoamSpec((1500, 1500), max_radius=0.2, min_radius=0.01, num_trial_points=1_500_000),
        ScanSpec(256, 96, photon_count=32000.0),
    ),
}
QUICK = {"8³": (FoamSpec((5, 5), max_radius=0.2, min_radius=0.1, num_trial_points=1000), ScanSpec(8, 4))}


def run(recorder: Recorder) -> None:
    """Record the seconds of each scan, twice."""
    for name, (foam, scan) in (QUICK if recorder.quick else SCANS).items():
        for _ in range(2):
            if recorder.late:
                return
            with recorder.measurement("scan", size=name) as numbers:
                found = []
                numbers["seconds"] = recorder.seconds(
                    lambda f=foam, s=scan, found=found: found.append(simulate(SimulationSpec(f, s), 0, recorder.device))  # type: ignore[misc]
                )
                numbers |= {"peak_gib": recorder.peak_gib(), "finite": bool(np.isfinite(found[0].fbp).all())}
