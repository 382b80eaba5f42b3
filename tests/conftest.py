"""Settings for all tests."""

import gc
import os
import signal

import torch

# The tests' tensors are small: several threads cost more than they give, above all when cores are shared.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Runs of the tests' own classes are resumed and tested, also in processes of their own.
os.environ.setdefault("INVERTIBLE_IMAGING_TRUST", "tests")

# A shell that starts the tests in the background makes them, and the processes that they start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the collected tests: they are no garbage, and each full pass would walk them all."""
    gc.collect()
    gc.freeze()
