"""The ``memcnn`` policy: each leaf inside a `memcnn.InvertibleModuleWrapper` (van de Leemput et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import memcnn
from torch import Tensor, nn

from .module import InvertibleModule, past_policies
from .replay import AutocastState, FrozenStatistics, Replay, RngState


class _Repeatable(nn.Module):
    """A leaf as memcnn calls it: forward, then in backward inverse and forward again.

    memcnn moves batch statistics at each of the three and draws a new dropout mask at the last; here, the second and
    third repeat the first, in its autocast state.
    """

    def __init__(self, leaf: InvertibleModule, method: str, device_type: str) -> None:
        super().__init__()
        self.leaf = leaf
        self._method = method
        self._autocast = AutocastState(device_type)
        self._start: RngState | None = None

    def forward(self, x: Tensor) -> Any:
        if self._start is not None:
            result = self._again(getattr(self.leaf, self._method), x)
            if not isinstance(result, tuple):
                return result
            y, logdet = result
            # memcnn differentiates every output: a constant log-determinant needs a path to the input.
            return y, logdet if logdet.requires_grad else logdet + 0 * x.flatten(1)[:, 0]
        self._start = RngState(x.device)
        with past_policies():
            result = getattr(self.leaf, self._method)(x)
        # `.data`: memcnn detaches in place what it gets, and torch refuses that for views such as reshaped tensors.
        return tuple(part.data for part in result) if isinstance(result, tuple) else result.data

    def inverse(self, y: Tensor, *_logdet: Tensor) -> Tensor:
        return self._again(self.leaf.inverse, y)

    def _again(self, function: Callable[[Tensor], Any], state: Tensor) -> Any:
        with past_policies(), Replay(self._start), FrozenStatistics(self.leaf), self._autocast():
            return function(state)


def wrapped_by_memcnn(leaf: InvertibleModule, method: str, x: Tensor) -> Any:
    """Evaluate one leaf through memcnn, which frees the leaf's input until backward rebuilds it."""
    if type(x.grad_fn).__name__ != "InvertibleCheckpointFunctionBackward":
        x = x.clone()  # memcnn may free only what another wrapped leaf made: not a caller's tensor, nor a shared view
    return memcnn.InvertibleModuleWrapper(_Repeatable(leaf, method, x.device.type))(x)
