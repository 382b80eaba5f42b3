"""The protocol of invertible layers."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .cached_weights import without_cached_weights
from .export import is_exporting
from .log_determinants import constant_logdet

State = Any
"""What a bijection maps: one tensor (B, C, *spatial), or a tuple of several.

Example:
    >>> state: State = (torch.zeros(2, 4, 8, 8), torch.zeros(2, 12, 4, 4))
"""
Condition = Tensor | tuple[Tensor, ...] | None
"""What may steer a bijection: class labels, an image, several tensors, or nothing.

Example:
    >>> condition: Condition = torch.eye(10)[[3, 7]]  # labels, (2, 10)
"""
Step = Callable[["InvertibleModule", State], State]
"""The type of ``step(part, x)``, which evaluates a part of a `Composite`.

Example:
    >>> step: Step = lambda part, x: FORWARD(part, x)
"""
BackStep = Callable[["InvertibleModule", "Position"], None]
Policy = Callable[["InvertibleModule", "Call", State, Condition], Any]
Watcher = Callable[["Call", State, Condition], None]

_HALF_PRECISION = (torch.bfloat16, torch.float16)

_engine = threading.local()


@contextmanager
def past_policies() -> Iterator[None]:
    """Inside, modules compute directly: the parts of a tree do not ask the policy that evaluates it, and no weight
    comes from a cache."""
    outer = getattr(_engine, "running", False)
    _engine.running = True
    try:
        with without_cached_weights():
            yield
    finally:
        _engine.running = outer


@dataclass(frozen=True)
class Call:
    """One of the four entry points of a bijection: its direction, and whether it returns the log-determinant."""

    name: str
    inverse: bool = False
    logdet: bool = False

    def __call__(self, part: InvertibleModule, x: State, condition: Condition = None) -> Any:
        """Evaluate a part, with the condition if it takes one."""
        function = part if self.name == "forward" else getattr(part, self.name)  # forward through the module's hooks
        return function(x, condition) if part.takes_condition and condition is not None else function(x)

    def tree(self, root: InvertibleModule) -> InvertibleModule:
        """The bijection whose forward pass is this call of ``root``."""
        return root.inverted() if self.inverse else root


FORWARD = Call("forward")
"""``FORWARD(part, x, condition)``: y, with the condition handed on if the part takes one.

Example:
    >>> FORWARD(FixedAffine(2.0), torch.ones(1, 1))
    tensor([[2.]])
"""
INVERSE = Call("inverse", inverse=True)
"""``INVERSE(part, y, condition)``: x, likewise.

Example:
    >>> INVERSE(FixedAffine(2.0), torch.ones(1, 1))
    tensor([[0.5000]])
"""
FORWARD_AND_LOGDET = Call("forward_and_logdet", logdet=True)
INVERSE_AND_LOGDET = Call("inverse_and_logdet", inverse=True, logdet=True)


def _entry_point(call: Call, method: Callable) -> Callable:
    """Check the arguments, widen the state under autocast, tell the watcher, and hand the call to the policy."""

    @functools.wraps(method)
    def enter(self: InvertibleModule, x: State, condition: Condition = None) -> Any:
        for name, value in (("state", x), ("condition", condition)):
            if isinstance(value, list):  # FrEIA's habit
                raise TypeError(f"expected the {name} as a tensor or a tuple of tensors, got a list")
        if condition is not None:
            self.check_condition(condition)
        if self.watcher is not None:
            self.watcher(call, map_tensors(in_single_precision, x), condition)
        policy = self.backprop_policy
        is_direct = not torch.is_grad_enabled() or getattr(_engine, "running", False) or is_exporting()
        if policy is not None and not is_direct:
            return _under(policy, self, call, x, condition)  # which widens the state itself
        if self.bijection is self:  # else that part does it
            x = map_tensors(in_single_precision, x)
        return method(self, x) if condition is None else method(self, x, condition)

    return enter


def in_single_precision(part: Tensor) -> Tensor:
    """A tensor of a state as a tree takes it: in float32 where autocast made it half precision.

    The layer before may have run under autocast. Its output has 8 or 11 bits, and so would have every state of the
    tree: the rounding errors of their inversion would be a hundred times those of float32.
    """
    if part.dtype in _HALF_PRECISION and torch.is_autocast_enabled(part.device.type):
        return part.float()
    return part


@torch.compiler.disable
def _under(policy: Policy, root: InvertibleModule, call: Call, x: State, condition: Condition) -> Any:
    """Evaluate a root under its policy, which `torch.compile` cannot trace; subnets compiled by themselves stay so."""
    return policy(root, call, x, condition)


def tensors_of(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state or a condition, as a tuple."""
    if state is None:
        return ()
    return state if isinstance(state, tuple) else (state,)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """The gradients of a state as a tuple, with None for a missing one."""
    return value if isinstance(value, tuple) else (value,)


def map_tensors(function: Callable[[Tensor], Tensor], state: State) -> State:
    """The state, or a condition or None, with the function applied to each of its tensors."""
    if state is None:
        return None
    return tuple(function(part) for part in state) if isinstance(state, tuple) else function(state)


def all_modules(root: nn.Module) -> list[nn.Module]:
    """The module and all inside it, each once, as `nn.Module.modules`, whose cost grows with the depth of a tree."""
    found, modules = {root}, [root]
    for module in modules:  # which grows
        for child in module._modules.values():
            if child is not None and child not in found:
                found.add(child)
                modules.append(child)
    return modules


def trained_parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    """The parameters of these modules themselves that require a gradient, each once."""
    found: dict[int, Tensor] = {}
    for module in modules:
        for parameter in module._parameters.values():
            if parameter is not None and parameter.requires_grad:
                found[id(parameter)] = parameter
    return list(found.values())


def zero_logdet(state: State) -> Tensor:
    """Zeros of shape (B,), on the state's device and in its precision, at least float32."""
    return constant_logdet(0.0, tensors_of(state)[0])


@dataclass
class Position:
    """Where a walk from output to input stands: a state and its gradient, which each part replaces.

    A tensor of the state on which the loss does not depend has None as its gradient.
    No caller keeps a reference to either, so a part's memory is freed before the next part needs it.
    """

    state: State
    grad: State


class InvertibleModule(nn.Module):
    """A bijection ``y = f(x)`` between tensors of shape (B, C, *spatial), or between tuples of such tensors.

    Subclasses implement ``forward`` and ``inverse``, and ``forward_and_logdet`` where the log-determinant is known.
    ``forward`` changes no state that a second call would change again. A layer steered by a condition takes it as the
    second argument of all three and sets ``takes_condition``; composites hand it on to the parts that take one.
    ``inverse_and_logdet`` follows; a layer that can give both at once, or draws at random, implements that too.

    Raises:
        ValueError: in use, for a condition that no part takes.

    Example:
        >>> class Cube(InvertibleModule):
        ...     def forward(self, x):
        ...         return x**3
        ...     def inverse(self, y):
        ...         return y.sign() * y.abs() ** (1 / 3)
        ...     def forward_and_logdet(self, x):
        ...         return x**3, sum_per_sample((3 * x**2).log())
        >>> Cube().inverse_and_logdet(torch.full((1, 1), 8.0))  # −log 12
        (tensor([[2.]]), tensor([-2.4849]))
    """

    # Set on the root of a tree by `set_backprop`; it then governs all entry points.
    backprop_policy: Policy | None = None
    watcher: Watcher | None = None  # is told of every call of an entry point; see `inspection.calls`
    takes_condition: bool = False
    # True for a network that pads its input, so that it is a bijection only on sizes that need no padding.
    pads_input: bool = False
    # Set by a class, for itself and not for its subclasses, that asks `may_overwrite` before it changes its input.
    overwrites_input: bool = False
    _keeps_input: bool = False  # see `keep_input`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for call in (FORWARD, INVERSE, FORWARD_AND_LOGDET, INVERSE_AND_LOGDET):
            if call.name in cls.__dict__:
                setattr(cls, call.name, _entry_point(call, cls.__dict__[call.name]))

    def inverse(self, y: State) -> State:
        """The ``x`` with ``f(x) = y``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement inverse")

    def forward_and_logdet(self, x: State) -> tuple[State, Tensor]:
        """``y`` and ``log|det dy/dx|`` of shape (B,), in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no log-determinant")

    @functools.partial(_entry_point, INVERSE_AND_LOGDET)
    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        """The ``x`` with ``f(x) = y``, and ``log|det dx/dy|`` of shape (B,), in nats."""
        x = INVERSE(self, y, condition)
        _, logdet = FORWARD_AND_LOGDET(self, x, condition)
        return x, -logdet

    def check_condition(self, condition: Condition) -> None:
        """Refuse a condition that this module cannot take.

        Raises:
            ValueError: that says what was expected.
        """
        if not self.takes_condition:
            raise ValueError(f"expected no condition, because no part of this {type(self).__name__} takes one")

    def inverted(self) -> InvertibleModule:
        """The inverse map as a module of its own; it shares this module's parameters."""
        return Inverse(self)

    @property
    def bijection(self) -> InvertibleModule:
        """The part that is a bijection: a network that pads its input names what lies inside the padding."""
        return self


class VolumePreserving(InvertibleModule):
    """A bijection with ``|det dy/dx| = 1`` everywhere.

    Example:
        >>> class Flip(VolumePreserving):
        ...     def forward(self, x):
        ...         return x.flip(1)
        ...     inverse = forward
        >>> Flip().forward_and_logdet(torch.tensor([[1.0, 2.0]]))
        (tensor([[2., 1.]]), tensor([0.]))
    """

    def forward_and_logdet(self, x: State, condition: Condition = None) -> tuple[State, Tensor]:
        return FORWARD(self, x, condition), zero_logdet(x)

    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        return INVERSE(self, y, condition), zero_logdet(y)


class Inverse(InvertibleModule):
    """The inverse of a bijection: ``y = f⁻¹(x)``.

    Args:
        module: f; its parameters are shared.

    Example:
        >>> up = Inverse(Downsampling(3, spatial_dims=2))
        >>> up(torch.randn(2, 12, 4, 4)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, module: InvertibleModule) -> None:
        super().__init__()
        self.module = module
        self.takes_condition = module.takes_condition

    def forward(self, x: State, condition: Condition = None) -> State:
        return INVERSE(self.module, x, condition)

    def inverse(self, y: State, condition: Condition = None) -> State:
        return FORWARD(self.module, y, condition)

    def forward_and_logdet(self, x: State, condition: Condition = None) -> tuple[State, Tensor]:
        return INVERSE_AND_LOGDET(self.module, x, condition)

    def inverse_and_logdet(self, y: State, condition: Condition = None) -> tuple[State, Tensor]:
        return FORWARD_AND_LOGDET(self.module, y, condition)

    def inverted(self) -> InvertibleModule:
        return self.module
