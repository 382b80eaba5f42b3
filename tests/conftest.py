"""Settings for all tests."""

import gc
import os
import signal

import pytest
import torch

# The tensors of the tests are small, so several threads are slower than one, above all on shared cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests resume and test runs of their own classes, also in other processes.
os.environ.setdefault("INVERTIBLE_IMAGING_TRUST", "tests")

# A shell that starts the tests in the background makes them and their child processes ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked gpu that need more CUDA devices than there are."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for item in items:
        mark = item.get_closest_marker("gpu")
        needed = 0 if mark is None else (mark.args or (1,))[0]
        if needed > present:
            reason = f"needs {needed} CUDA device{'s' * (needed > 1)}, and this machine has {present}"
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """Freeze the collected tests, so that the garbage collector does not walk them all in each full pass."""
    gc.collect()
    gc.freeze()
