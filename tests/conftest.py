"""Settings for all tests."""

import gc
import os
import signal

import torch

# The tests' tensors are small: several threads cost more than they give, above all when cores are shared.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background makes them, and the processes that they start, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the collected tests: they are no garbage, and each full pass would walk them all."""
    gc.collect()
    gc.freeze()
