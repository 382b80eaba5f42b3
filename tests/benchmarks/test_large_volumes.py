"""512³ voxels of 16 channels are 2³¹ numbers, one more than a 32-bit index can count: which operations see so many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.cubes import CUBES, training_step
from benchmarks.fake_values import DEVICE, FakeTensorMode, fake_values, make_fake
from benchmarks.peers import Definition
from src.invertible.layers.orthogonal import sum_in_parts
from src.models.normalisation import Normalisation, Options
from tests.marks import slow

# These only describe memory, in 64 bits.
VIEWS = {
    *("_unsafe_view", "alias", "as_strided", "detach", "expand", "permute", "slice", "split", "split_with_sizes"),
    *("t", "transpose", "unbind", "view", "device"),
}
# Torch halves these until 32 bits suffice (`TensorIterator::with_32bit_indexing`; `cat` falls back to copies).
ITERATED = {
    *(
        "_to_copy",
        "add",
        "add_",
        "addcmul",
        "cat",
        "clone",
        "copy_",
        "empty_like",
        "fill_",
        "mul",
        "neg",
        "new_full",
        "new_zeros",
    ),
    *("slice_backward", "sub_", "sum"),
}
# cuBLAS counts rows and columns in 32 bits, at most 2²⁷ here, and addresses in 64. cuDNN has 64-bit convolutions from
# version 9.3 on, which torch 2.11 brings along; before, torch would take a kernel that needs 27 times the memory.
IN_64_BITS = {"bmm", "convolution", "convolution_backward"}


class LargeOperations(TorchDispatchMode):
    """Notes which operations read or write a tensor of at least 2³¹ numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = tree_leaves((args, kwargs, result))
        if any(isinstance(part, Tensor) and part.numel() >= 2**31 for part in parts):
            self.names.add(func.overloadpacket.__name__)
        return result


@pytest.mark.parametrize(
    ("name", "bf16"),
    [("iUNet, reversible", True), *(slow(*case) for case in (("iUNet, reversible", False), ("iUNet, stored", True)))],
)
def test_only_operations_that_can_count_so_far_see_whole_states(name: str, bf16: bool) -> None:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    net = CUBES[name](Definition(3, 16, 2, 1))
    make_fake(net, mode)
    with fake_values(mode), LargeOperations() as large:
        training_step(net, torch.zeros(1, 1, 512, 512, 512, device=DEVICE), bf16)
    assert {"convolution", "bmm"} <= large.names
    assert large.names <= VIEWS | ITERATED | IN_64_BITS


def test_indices_of_so_many_numbers() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.zeros(1, 16, 512, 512, 512, device=DEVICE, dtype=torch.bfloat16)
        weight = torch.ones(16, device=DEVICE)
        normalisation, _ = Normalisation.of(x, weight, weight, Options(1, 1e-5))
        mean, rstd = normalisation.mean, normalisation.rstd
        columns = x.float().flatten(2)[:, None]
        product = sum_in_parts(columns, columns, 3)
    assert (mean.shape, rstd.shape, mean.dtype) == ((1, 1), (1, 1), torch.float32)
    assert product.shape == (1, 16, 16)
