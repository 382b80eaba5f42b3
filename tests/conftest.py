"""Settings for all tests."""

import os

import torch

# The tests' tensors are small: several threads cost more than they give, above all when cores are shared.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
