"""The memory that the kernel has given this process."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """Return the most memory that this process ever held (the kernel's high-water mark of the resident set).

    It counts Python, the libraries and the data too, and never falls. Linux and macOS only.
    """
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage, which on Linux begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
