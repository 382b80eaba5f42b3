"""`torch.compile` for the subnets of couplings, which are most of the work; the engine itself stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .arguments import check_choice
from .layers.coupling import Coupling
from .module import InvertibleModule

MODES = ("default", "reduce-overhead", "max-autotune")

# Of one subnet: with and without gradients, in training and evaluation, for two sizes of an input.
_VARIANTS = 8


def compile_subnets(net: nn.Module, mode: str = "default", *, backend: str | Callable = "inductor") -> int:
    """Compile the subnets of all couplings in place, and return their number.

    A subnet is compiled when it is first called, and again for another size of its input. Parameters, their names and
    checkpoints stay the same; a copy of the network is not compiled. All backprop policies work with it.

    Args:
        net: a network with couplings.
        mode: ``default``, ``reduce-overhead`` (CUDA graphs, for levels so coarse that starting their kernels takes
            longer than the kernels) or ``max-autotune``; see `torch.compile`.
        backend: of `torch.compile`; others than its default take no mode.

    Raises:
        ValueError: for an unknown mode, or a network without couplings; in use, for inputs of too many sizes.
    """
    check_choice("mode", mode, MODES)
    subnets = [
        part
        for module in net.modules()
        if isinstance(module, Coupling)
        for part in module.children()
        if not isinstance(part, InvertibleModule)
    ]
    if not subnets:
        raise ValueError(f"expected a network with couplings, whose subnets can be compiled, got {type(net).__name__}")
    _allow_variants(_VARIANTS * len(subnets))
    options: dict[str, Any] = {"mode": mode} if backend == "inductor" else {}
    for subnet in subnets:
        # With the whole graph, or torch would go on without compilation where it cannot compile or did so too often.
        subnet.compile(fullgraph=True, dynamic=False, backend=backend, **options)
        subnet._compiled_call_impl = _explained(subnet._compiled_call_impl)  # type: ignore[arg-type]
    return len(subnets)


def _allow_variants(number: int) -> None:
    """Let torch keep so many compiled variants: it counts those of all modules together, and by default up to 8."""
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, number)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, number)


def _explained(compiled: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            sizes = ", ".join(str(tuple(part.shape)) for part in args if isinstance(part, torch.Tensor))
            raise ValueError(
                f"expected inputs of few sizes for compiled subnets, got one more, {sizes}, after "
                f"{torch._dynamo.config.recompile_limit} variants: use crops and batches of one size, or do not compile"
            ) from error

    return call
