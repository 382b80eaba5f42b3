"""Linear layers and convolutions with a bounded operator norm."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..export import is_exporting
from .fourier_norm import LinearLayer, fourier_norm_bound
from .settling import Settled, Together, find, most_at_once, options_of, settle


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
        self._settled: dict[tuple[int, ...], list[Settled]] = {}  # the latest first
        self._last_shape: tuple[int, ...] | None = None
        self._together = Together()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._together.add(self)

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
        self._last_shape = input_shape
        with torch.inference_mode(False):
            settled = find(self._known(input_shape), weight)
            if settled is None:
                settled = self._settle(input_shape)
        self._keep(input_shape, settled)
        return settled.vector

    def _known(self, input_shape: tuple[int, ...]) -> list[Settled]:
        known = [settled.like(self.layer.weight) for settled in self._settled.get(input_shape, ())]
        if known:
            self._settled[input_shape] = known
        return known

    def _keep(self, input_shape: tuple[int, ...], settled: Settled) -> None:
        """Put the vector of the present weight first, and forget those that were found for its former values."""
        weight = self.layer.weight
        known = self._known(input_shape)
        is_new = all(other is not settled for other in known)
        others = [other for other in known if other is not settled and (other.may_return(weight) or not is_new)]
        settled.owner = weakref.ref(weight)
        self._settled[input_shape] = [settled, *others]

    def _settle(self, input_shape: tuple[int, ...]) -> Settled:
        """Find the vector of the present weight, and those of the other layers that `settle_together` named."""
        layers = [self, *self._changed_peers(input_shape)]
        # An activation checkpoint must not count what is saved here: it is not repeated.
        with unwatched():
            found = settle(
                self.layer,
                [layer.layer.weight for layer in layers],
                [layer._last_vector(input_shape) for layer in layers],
                input_shape,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )
        for layer, settled in zip(layers[1:], found[1:], strict=True):
            layer._keep(input_shape, settled)
        return found[0]

    def _last_vector(self, input_shape: tuple[int, ...]) -> Tensor | None:
        known = self._known(input_shape)
        return known[0].vector if known and self.training else None

    def _changed_peers(self, input_shape: tuple[int, ...]) -> list[SpectralNormalised]:
        """The layers like this one whose weights have changed since they last saw inputs of this shape too."""
        most = most_at_once(self.layer, input_shape)
        if most == 1:
            return []
        peers = [
            peer
            for peer in self._together.members()
            if peer is not self and peer._last_shape == input_shape and peer._kind() == self._kind()
        ][: most - 1]
        if not peers:
            return []
        weights = torch.stack([peer.layer.weight.detach() for peer in peers])
        values = torch.stack([peer._known(input_shape)[0].values for peer in peers])
        changed = (weights != values).flatten(1).any(1)
        usable = weights.isfinite().flatten(1).all(1)  # else the error is that layer's own
        chosen = (changed & usable).cpu()
        found = [peer for peer, is_chosen in zip(peers, chosen, strict=True) if is_chosen]
        return [peer for peer in found if find(peer._known(input_shape)[1:], peer.layer.weight) is None]

    def _kind(self) -> tuple[Any, ...]:
        """Layers of one kind differ in their weights only."""
        weight = self.layer.weight
        searched = (self.tolerance, self.max_iterations, self.training)
        return (weight.shape, weight.dtype, weight.device, *options_of(self.layer), *searched)

    def get_extra_state(self) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
        chosen = {
            shape: find(self._known(shape), self.layer.weight) or self._settled[shape][0] for shape in self._settled
        }
        return {shape: (settled.vector, settled.values) for shape, settled in chosen.items()}

    def set_extra_state(self, state: dict[tuple[int, ...], tuple[Tensor, Tensor]]) -> None:
        # Older checkpoints have several vectors, the first singular vector first.
        self._settled = {shape: [Settled(vectors[:1], values)] for shape, (vectors, values) in state.items()}

    def extra_repr(self) -> str:
        return f"coefficient={self.coefficient}"


def settle_together(net: nn.Module) -> None:
    """Let the normalised layers of a network that differ in their weights only find their singular vectors together.

    On a GPU, which one layer does not keep busy, the first of them that meets a changed weight does the work of all, in
    as many operations as for one. The vectors are those that each would find alone, up to rounding.

    Args:
        net: a network whose linear layers `bound_lipschitz` has normalised, for states of any shape.

    Example:
        >>> net = bound_lipschitz(torch.nn.Sequential(torch.nn.Linear(4, 4), LipSwish(), torch.nn.Linear(4, 4)), 0.9)
        >>> settle_together(net)
    """
    together = Together()
    for module in net.modules():
        if isinstance(module, SpectralNormalised):
            module._together = together
            together.add(module)


def unwatched() -> saved_tensors_hooks:
    """A context for graphs that are built and used inside: hooks on saved tensors do not see them."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _linear_map(layer: LinearLayer, weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    return layer._conv_forward(x, weight, bias)
