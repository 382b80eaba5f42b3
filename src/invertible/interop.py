"""Layers of other libraries in this one: FrEIA's, and whatever has ``forward`` and ``inverse``."""

from typing import Any

import torch
from torch import Tensor, nn

from .engine.walk import LeafBackward, backward_rule, default_rule
from .freia_autocast import autocast_in_subnets_only
from .freia_couplings import halves_back
from .freia_parts import correct
from .log_determinants import logdet_dtype
from .module import Condition, Inverse, InvertibleModule, State, in_single_precision, tensors_of
from .shapes import as_state


class FreiaModule(InvertibleModule):
    """A ``FrEIA.modules.InvertibleModule`` (Ardizzone et al., 2018), such as its coupling blocks, or a whole FrEIA net.

    FrEIA's call ``module((x, …), c=[…], rev=…, jac=…) -> ((y, …), log_jac_det)`` becomes our four methods. Backward
    under ``reversible`` evaluates the subnets of its NICE, RNVP, GLOW and GIN blocks once, see `freia_couplings`; other
    modules have the default rule. What FrEIA's own modules get wrong is corrected; see `freia_parts.correct`. Under
    autocast only the subnets run in half precision: any module inside of FrEIA's that is none of them counts as one.

    Args:
        module: made for one shape of states (B, C, *spatial).
        takes_condition: whether to hand conditions on; by default, whether the module declares their shapes
            (``dims_c``), or is a ``SequenceINN`` with a part that takes one.

    Raises:
        TypeError: for a module that does not declare shapes as FrEIA's do, or is no bijection that can be inverted and
            differentiated exactly.

    Example:
        >>> from FrEIA.modules import PermuteRandom
        >>> layer = FreiaModule(PermuteRandom([(4, 8, 8)]))
        >>> y, logdet = layer.forward_and_logdet(torch.randn(2, 4, 8, 8))  # (2, 4, 8, 8), (2,)
    """

    def __init__(self, module: nn.Module, takes_condition: bool | None = None) -> None:
        super().__init__()
        if not hasattr(module, "dims_in") or not hasattr(module, "dims_c"):
            raise TypeError(f"expected an InvertibleModule of FrEIA, got {type(module).__name__}")
        correct(module)
        self.module = module
        self.takes_condition = _declares_condition(module) if takes_condition is None else takes_condition

    def forward(self, x: State, condition: Condition = None) -> State:
        return self._call(x, condition, rev=False, jac=False)[0]

    def inverse(self, y: State, condition: Condition = None) -> State:
        return self._call(y, condition, rev=True, jac=False)[0]

    def forward_and_logdet(self, x: State, condition: Condition = None) -> tuple[State, Tensor]:
        return self._call(x, condition, rev=False, jac=True)

    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        return self._call(y, condition, rev=True, jac=True)

    def _call(self, state: State, condition: Condition, *, rev: bool, jac: bool) -> tuple[State, Any]:
        options: dict[str, Any] = {"rev": rev, "jac": jac}
        if self.takes_condition:
            if condition is None:
                raise ValueError(f"expected a condition for FrEIA's {type(self.module).__name__}, got none")
            options["c"] = [in_single_precision(part) for part in tensors_of(condition)]
        try:
            with autocast_in_subnets_only(self.module, tensors_of(state)[0].device.type):
                outputs, logdet = self.module(tensors_of(state), **options)
        except RuntimeError as error:
            # GraphINN wraps every error of its parts in one of its own, even the exception by which torch ends a
            # recomputation early.
            cause: BaseException | None = error
            while cause is not None and type(cause).__module__ != "torch.utils.checkpoint":
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None
        if jac:
            first = tensors_of(state)[0]
            # Some of FrEIA's modules return a number for all samples.
            logdet = torch.as_tensor(logdet, dtype=logdet_dtype(first), device=first.device).expand(first.shape[0])
        return as_state((outputs,) if isinstance(outputs, Tensor) else tuple(outputs)), logdet


def _declares_condition(module: nn.Module) -> bool:
    """Whether a module of FrEIA takes conditions; a SequenceINN keeps the number of each part's, or None, in a list."""
    return bool(module.dims_c) or any(number is not None for number in getattr(module, "conditions", ()))


@backward_rule(FreiaModule)
def freia_module(leaf: LeafBackward, layer: FreiaModule, y: State, grad: State) -> tuple[State, State]:
    """Half by half where a coupling block allows it, else by the default rule."""
    parts = halves_back(layer.module, leaf)
    for part in parts:
        y, grad = part.back(leaf, y, grad)
    return (y, grad) if parts else default_rule(leaf, layer, y, grad)


@backward_rule(FreiaModule, inverse=True)
def inverse_freia_module(leaf: LeafBackward, layer: FreiaModule, y: State, grad: State) -> tuple[State, State]:
    """The same for the inverse."""
    parts = halves_back(layer.module, leaf, inverse=True)
    for part in parts:
        y, grad = part.inverse_back(leaf, y, grad)
    return (y, grad) if parts else default_rule(leaf, Inverse(layer), y, grad)


class ForeignModule(InvertibleModule):
    """Any module with ``forward(*tensors)`` and ``inverse(*tensors)``, such as memcnn's couplings; no log-determinant.

    Args:
        module: from states (B, C, *spatial) to such states.

    Raises:
        TypeError: for a module without ``inverse``.
        ValueError: for one inside memcnn's wrapper, which frees its input: the engine's own, here.

    Example:
        >>> from memcnn import AdditiveCoupling as MemcnnCoupling
        >>> layer = ForeignModule(MemcnnCoupling(torch.nn.Conv2d(2, 2, 1)))
        >>> y = layer(torch.randn(1, 4, 8, 8))  # (1, 4, 8, 8)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(module, "inverse", None)):
            raise TypeError(f"expected a module with forward and inverse, got {type(module).__name__}")
        if any(type(part).__name__ == "InvertibleModuleWrapper" for part in module.modules()):
            raise ValueError(
                "expected no memcnn.InvertibleModuleWrapper inside; wrap the module it holds (_fn) and choose the "
                "memory policy with set_backprop"
            )
        self.module = module

    def forward(self, x: State) -> State:
        return self.module(*tensors_of(x))

    def inverse(self, y: State) -> State:
        return self.module.inverse(*tensors_of(y))  # type: ignore[operator]
