"""Settings for all tests."""

import gc
import os
import signal

import torch

# The tensors of the tests are small, so several threads are slower than one, above all on shared cores.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests resume and test runs of their own classes, also in other processes.
os.environ.setdefault("INVERTIBLE_IMAGING_TRUST", "tests")

# A shell that starts the tests in the background makes them and their child processes ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Freeze the collected tests, so that the garbage collector does not walk them all in each full pass."""
    gc.collect()
    gc.freeze()
