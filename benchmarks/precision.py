"""In which precision a network computes: some libraries leave autocast in one of their passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def convolution_dtypes(net: nn.Module, step: Callable[[], object]) -> list[str]:
    """Names of the types that the network's convolutions return during a step, in forward and in recomputation."""
    seen: set[str] = set()

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen.add(str(output.dtype).removeprefix("torch."))

    convolutions = (module for module in net.modules() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    handles = [module.register_forward_hook(note) for module in convolutions]
    try:
        step()
    finally:
        for handle in handles:
            handle.remove()
    return sorted(seen)


def labelled(name: str, row: dict[str, Any], bf16: bool) -> str:
    """The name of a network, and its precision where that is not the one that was asked for.

    Results that were written before the types were noted have no label.
    """
    expected = ["bfloat16" if bf16 else "float32"]
    dtypes = row.get("convolution_dtypes", expected)
    return name if dtypes == expected else f"{name} (computes in {' and '.join(dtypes)})"
