"""Networks with a bounded Lipschitz constant: spectrally normalised convolutions and 1-Lipschitz activations."""

from __future__ import annotations

import functools
import math
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..export import is_exporting
from .activations import SneakyReLU
from .fourier_norm import LinearLayer, fourier_norm_bound
from .singular_vector import first_singular_vector, random_unit_vector

# Slopes in [−1, 1] whatever their options.
_ONE_LIPSCHITZ = (nn.Identity, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.CELU, SneakyReLU)


class LipSwish(nn.Module):
    """``x · sigmoid(βx) / 1.1``: smooth and 1-Lipschitz for every slope β > 0, which is learned (Chen et al., 2019).

    β = softplus(θ), and θ starts at 0.5.

    It takes tensors (B, …) of any shape.

    Example:
        >>> bool((LipSwish()(torch.linspace(-9, 9, 99)).diff() / (18 / 98)).abs().max() <= 1)
        True
    """

    lipschitz_constant = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * nn.functional.softplus(self.theta)) / 1.1


_NOVELTY = 0.3  # length of the random vector that is added to the last singular vector


@dataclass
class _Settled:
    """The singular vector as it was found for the values of a weight."""

    vector: Tensor  # (1, *input shape), of norm 1
    values: Tensor
    owner: weakref.ref[Tensor] | None = None  # the tensor last seen with them; None in a copied or loaded module

    def like(self, weight: Tensor) -> _Settled:
        """The same on the device and in the precision of a weight: a module may have been moved or cast since."""
        if (self.values.dtype, self.values.device) == (weight.dtype, weight.device):
            return self
        vector = self.vector.to(weight.device, torch.promote_types(weight.dtype, torch.float32))
        return _Settled(vector, self.values.to(weight), self.owner)

    def may_return(self, weight: Tensor) -> bool:
        """Whether backward may still need it: its values belong to another tensor than ``weight``, which is alive."""
        owner = None if self.owner is None else self.owner()
        return owner is not None and owner is not weight

    def __reduce__(self) -> tuple[Any, ...]:
        return _Settled, (self.vector, self.values)


class SpectralNormalised(nn.Module):
    """A linear or convolutional layer whose operator norm is at most ``c``: ``W / max(1, σ/c)``.

    σ is the largest singular value of the linear map itself, for a convolution that from images to images with its
    padding and stride at the size of the input at hand, not that of the reshaped kernel, which may be smaller or larger
    (Gouk et al., 2018; Behrmann et al., 2019). It is ``|A v|`` for the singular vector ``v``, differentiable in W.

    ``v`` comes from Lanczos' method on ``AᵀA``, started from the vector of the previous weight plus a random vector,
    since the old vector alone may miss a direction that has outgrown it. Each sweep takes 16 products with ``AᵀA`` and
    starts from the best vector of the last sweep, until the last four products no longer enlarge σ. A layer with at
    most 64 inputs is decomposed instead. In evaluation mode it starts from the random vector, so that σ depends on the
    weight only.

    ``v`` is updated only when the values of the weight have changed, so once per optimiser step: calls with the same
    weight, as in the inverse and in recomputation during backward, see the same vector. The values are compared, since
    torch's fused optimizers and writes through ``.data`` leave no other trace. Where weights are exchanged
    (`torch.func.functional_call`), each keeps its vector as long as it lives.

    For each input size it keeps one vector of the size of an input and a copy of the weight. A sweep temporarily needs
    the memory of 16 inputs and outputs of one sample. The state dict holds the vectors as extra state.

    Args:
        layer: `torch.nn.Linear` or a convolution, and so the shape (B, …) of its inputs.
        coefficient: the bound ``c``.
        tolerance: relative growth of σ over the last quarter of a sweep at which the iteration ends.
        max_iterations: about the largest number of products.

    Raises:
        ValueError: for another kind of layer, or a coefficient that is not positive; in use, for weights that are not
            finite.

    Example:
        >>> layer, x = SpectralNormalised(torch.nn.Linear(8, 8, bias=False), coefficient=0.5), torch.randn(16, 8)
        >>> bool((layer(x).norm(dim=1) <= 0.5001 * x.norm(dim=1)).all())
        True
    """

    def __init__(
        self, layer: nn.Module, coefficient: float, *, tolerance: float = 1e-4, max_iterations: int = 1000
    ) -> None:
        super().__init__()
        if not isinstance(layer, LinearLayer):
            raise ValueError(f"expected a Linear layer or a convolution, got {type(layer).__name__}")
        if not coefficient > 0:
            raise ValueError(f"expected a positive coefficient, got {coefficient}")
        self.layer = layer
        self.coefficient = coefficient
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        # Plain attributes, not buffers: their shapes follow the input, and the engine copies every buffer in backward.
        self._settled: dict[tuple[int, ...], list[_Settled]] = {}  # the latest first

    @property
    def lipschitz_constant(self) -> float:
        return self.coefficient

    def forward(self, x: Tensor) -> Tensor:
        weight = self.normalised_weight(self._input_shape(x))
        return _linear_map(self.layer, weight, x, self.layer.bias)

    def normalised_weight(self, input_shape: tuple[int, ...]) -> Tensor:
        """``W / max(1, σ/c)`` for inputs of shape ``input_shape``, without the batch dimension."""
        weight = self.layer.weight
        return (weight / (self.norm(input_shape) / self.coefficient).clamp(min=1)).to(weight.dtype)

    def norm(self, input_shape: tuple[int, ...]) -> Tensor:
        """The operator norm σ of the layer as it was given, for inputs of shape ``input_shape``."""
        if not is_exporting():
            vector = self._vector(input_shape)
        elif input_shape in self._settled:  # from the last forward pass: in an export, the weight has no values
            vector = self._settled[input_shape][0].vector
        else:
            raise RuntimeError(f"expected a forward pass on inputs of shape {input_shape} before the export, got none")
        with torch.autocast(vector.device.type, enabled=False):
            return _linear_map(self.layer, self.layer.weight.to(vector.dtype), vector).norm()

    def certified_norm(self) -> float:
        """Upper bound of the normalised layer's operator norm, over all input sizes met so far.

        Unlike σ, which approaches the norm from below, it comes from a Fourier transform and errs upwards only
        (`fourier_norm_bound`).

        Raises:
            ValueError: before the first forward pass, and as `fourier_norm_bound` does.
        """
        if not self._settled:
            raise ValueError("expected a forward pass before the bound is computed, got none")
        return max(
            fourier_norm_bound(self.layer, shape[1:], weight=self.normalised_weight(shape)) for shape in self._settled
        )

    def _input_shape(self, x: Tensor) -> tuple[int, ...]:
        if isinstance(self.layer, nn.Linear):
            return (x.shape[-1],)
        is_padded = not isinstance(self.layer.padding, str) and any(self.layer.padding)
        if is_padded or max(self.layer.kernel_size) > 1:
            return tuple(x.shape[1:])
        return (x.shape[1], *[1] * (x.ndim - 2))  # the same matrix at every voxel: one of them has the norm of all

    @torch.compiler.disable
    def _vector(self, input_shape: tuple[int, ...]) -> Tensor:
        """The first singular vector for the present values of the weight, found anew if they are not known."""
        weight = self.layer.weight
        with torch.inference_mode(False):
            known = self._known(input_shape)
            settled = _find(known, weight)
            if settled is None:
                settled = self._settle(input_shape, known[0].vector if known and self.training else None)
                known = [other for other in known if other.may_return(weight)]
        settled.owner = weakref.ref(weight)
        self._settled[input_shape] = [settled, *(other for other in known if other is not settled)]
        return settled.vector

    def _known(self, input_shape: tuple[int, ...]) -> list[_Settled]:
        return [settled.like(self.layer.weight) for settled in self._settled.get(input_shape, ())]

    def _settle(self, input_shape: tuple[int, ...], last: Tensor | None) -> _Settled:
        """The vector of the present weight, searched from the last one on, if that is given."""
        weight = self.layer.weight.detach()
        if not bool(torch.isfinite(weight).all()):
            raise ValueError("expected finite weights, got infinite or undefined ones: the training may have diverged")
        precise = weight.to(torch.promote_types(weight.dtype, torch.float32))
        start = random_unit_vector(input_shape, precise)
        if last is not None:
            start = last + _NOVELTY * start
        # An activation checkpoint must not count what is saved here: it is not repeated.
        with torch.autocast(weight.device.type, enabled=False), unwatched():
            vector = first_singular_vector(
                functools.partial(_linear_map, self.layer, precise),
                start,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )
        return _Settled(vector, weight.clone())

    def get_extra_state(self) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        chosen = {
            shape: _find(self._known(shape), self.layer.weight) or self._settled[shape][0] for shape in self._settled
        }
        return {shape: (settled.vector, settled.values) for shape, settled in chosen.items()}

    def set_extra_state(self, state: dict[tuple[int, ...], tuple[Tensor, Tensor]]) -> None:
        # Older checkpoints have several vectors, the first singular vector first.
        self._settled = {shape: [_Settled(vectors[:1], values)] for shape, (vectors, values) in state.items()}

    def extra_repr(self) -> str:
        return f"coefficient={self.coefficient}"


def _find(known: Iterable[_Settled], weight: Tensor) -> _Settled | None:
    return next((settled for settled in known if torch.equal(settled.values, weight)), None)


def unwatched() -> saved_tensors_hooks:
    """A context for graphs that are built and used inside: hooks on saved tensors do not see them."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _linear_map(layer: LinearLayer, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    return layer._conv_forward(x, weight, bias)


def bound_lipschitz(net: nn.Module, coefficient: float) -> nn.Module:
    """The network with each linear layer and convolution spectrally normalised to ``coefficient``.

    It may be a layer, an activation with slopes in [−1, 1], any module that states a ``lipschitz_constant``, or a
    `torch.nn.Sequential` of such: then the product of the parts' constants bounds that of the whole, see
    `lipschitz_constant`. In-place activations are made out-of-place.

    Args:
        net: the network, which is changed.
        coefficient: the bound c of each layer.

    Raises:
        ValueError: for a part whose Lipschitz constant is not known.

    Example:
        >>> net = bound_lipschitz(torch.nn.Sequential(torch.nn.Linear(4, 4), LipSwish(), torch.nn.Linear(4, 4)), 0.9)
        >>> round(lipschitz_constant(net), 2)
        0.81
    """
    if _is_chain(net):
        return nn.Sequential(
            OrderedDict((name, bound_lipschitz(part, coefficient)) for name, part in net._modules.items())
        )
    if isinstance(net, LinearLayer):
        return SpectralNormalised(net, coefficient)
    lipschitz_constant(net)
    if getattr(net, "inplace", False):
        net.inplace = False  # type: ignore[assignment]
    return net


def _is_chain(net: nn.Module) -> TypeGuard[nn.Sequential]:
    # A subclass with a forward of its own may add a skip connection, for which no product of constants holds.
    return isinstance(net, nn.Sequential) and type(net).forward is nn.Sequential.forward


def lipschitz_constant(net: nn.Module) -> float:
    """An upper bound of the Lipschitz constant: the product over the parts of a `torch.nn.Sequential`.

    Args:
        net: normalised by `bound_lipschitz`.

    Raises:
        ValueError: for a part whose Lipschitz constant is not known.

    Example:
        >>> lipschitz_constant(torch.nn.Sequential(torch.nn.ReLU(), LipSwish()))
        1.0
    """
    if _is_chain(net):
        return math.prod(lipschitz_constant(part) for part in net)
    if hasattr(net, "lipschitz_constant"):
        return float(net.lipschitz_constant)  # type: ignore[arg-type]
    if isinstance(net, nn.ELU):
        return max(1.0, net.alpha)
    if isinstance(net, nn.LeakyReLU):
        return max(1.0, abs(net.negative_slope))
    if isinstance(net, _ONE_LIPSCHITZ):
        return 1.0
    raise ValueError(
        "expected linear layers, convolutions, activations with a known Lipschitz constant and nn.Sequential of them, "
        f"got {type(net).__name__}; your own modules can set the attribute lipschitz_constant"
    )
