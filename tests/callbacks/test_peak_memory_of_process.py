"""The peak of a process's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak counts other units")
def test_the_peak_stays_and_is_not_that_of_the_parent_process() -> None:
    code = """if True:
        import subprocess, sys
        from src.callbacks.peak_memory import forget_peak, peak_resident_bytes
        before = peak_resident_bytes()
        held = b"x" * 2**29
        del held
        print(peak_resident_bytes() - before)
        child = "from src.callbacks.peak_memory import peak_resident_bytes as peak; print(peak())"
        print(int(subprocess.check_output([sys.executable, "-c", child])) - before)
        print(max(peak_resident_bytes() - before if forget_peak() == 0 else 0, 0))
    """
    root = Path(__file__).parents[2]
    grown, of_a_child, forgotten = map(int, subprocess.check_output([sys.executable, "-c", code], cwd=root).split())
    assert grown == pytest.approx(2**29, rel=0.1)
    assert abs(of_a_child) < 2**28 and forgotten < 2**28
