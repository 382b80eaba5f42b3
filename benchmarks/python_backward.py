"""Backpropagation in Python, for fake CUDA tensors on a machine without a GPU.

torch's own engine asks the driver for the streams of a tensor's device, see
https://github.com/pytorch/pytorch/issues/92627. This one calls the same nodes in the same order, on no stream.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import GradientEdge, saved_tensors_hooks

Node = Any  # torch.autograd.graph.Node
Edge = tuple[Node, int]


class _Saved:
    """A tensor that a node keeps, until the node has run."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor


class PythonBackward:
    """One replacement of `torch.autograd.backward` and `torch.autograd.grad`."""

    def __init__(self) -> None:
        self._read: list[list[_Saved]] = []
        self._runs = itertools.count(1)
        self._run = -1
        self._keeps_graph = False

    def backward(self, tensors: Any, grad_tensors: Any = None, retain_graph: Any = None, *_: Any, **__: Any) -> None:
        """As `torch.autograd.backward`; without ``retain_graph``, the tensors lose their graph at once."""
        outputs = _as_list(tensors)
        roots, grads = _roots(outputs, _as_list(grad_tensors))
        if not retain_graph:
            for output in outputs:
                output.detach_()
        self._walk(roots, grads, {}, bool(retain_graph))

    def grad(
        self, outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: Any = None, **options: Any
    ) -> tuple[Tensor | None, ...]:
        """As `torch.autograd.grad`."""
        edges = [_edge(tensor) for tensor in _as_list(inputs)]
        captured: dict[Edge, Tensor | None] = dict.fromkeys(edges)
        roots, grads = _roots(_as_list(outputs), _as_list(grad_outputs))
        self._walk(roots, grads, captured, bool(retain_graph))
        if not options.get("allow_unused") and any(grad is None for grad in captured.values()):
            raise RuntimeError("expected every input to be used in the graph")
        return tuple(captured[edge] for edge in edges)

    def _walk(self, roots: list[Edge], grads: list[Tensor], captured: dict[Edge, Any], keeps_graph: bool) -> None:
        waiting = _dependencies([node for node, _ in roots])
        arrived: dict[Node, list[Tensor | None]] = {}
        for edge, grad in zip(roots, grads, strict=True):
            _arrive(arrived, edge, grad)
        # As in torch's engine, the youngest node first, and accumulations before all others.
        ready = [(_age(node), id(node), node) for node in dict.fromkeys(node for node, _ in roots) if not waiting[node]]
        heapq.heapify(ready)
        del roots, grads
        outer, self._run, self._keeps_graph = (self._run, self._keeps_graph), next(self._runs), keeps_graph
        while ready:
            node = heapq.heappop(ready)[-1]
            inputs = arrived.pop(node, [None] * len(node._input_metadata))
            for edge in captured:
                if edge[0] is node:
                    captured[edge] = inputs[edge[1]]
            results = self._evaluate(node, inputs, bool(captured), keeps_graph)
            del inputs
            following = [edge for edge in node.next_functions if edge[0] is not None]
            del node
            for edge, result in zip(following, results, strict=True):
                if result is not None:
                    _arrive(arrived, edge, result)
                waiting[edge[0]] -= 1
                if not waiting[edge[0]]:
                    heapq.heappush(ready, (_age(edge[0]), id(edge[0]), edge[0]))
            del following, results
        self._run, self._keeps_graph = outer

    def _evaluate(
        self, node: Node, inputs: list[Tensor | None], is_grad: bool, keeps_graph: bool
    ) -> list[Tensor | None]:
        """The gradient for each tensor that requires one."""
        accumulates = type(node).__name__ == "AccumulateGrad"
        is_function = isinstance(node, FunctionCtx)  # which torch calls without any gradient, too
        if (accumulates and is_grad) or (not is_function and all(part is None for part in inputs)):
            return [None for before, _ in node.next_functions if before is not None]
        if is_function and not getattr(node, "takes_none", False):
            pairs = zip(inputs, node._input_metadata, strict=True)
            inputs = [torch.zeros(m.shape, dtype=m.dtype, device=m.device) if g is None else g for g, m in pairs]
        self._read.append([])
        with torch.no_grad():
            results = node.apply(*inputs) if is_function else node(*inputs)
        for saved in self._read.pop():
            if not keeps_graph:
                saved.tensor = None
        results = results if isinstance(results, tuple) else (results,)
        # A function also returns something for each argument that is no tensor.
        needed = node.needs_input_grad if is_function else [before is not None for before, _ in node.next_functions]
        return [result for result, is_needed in zip(results, needed, strict=False) if is_needed]

    def _unpack(self, saved: _Saved) -> Tensor:
        if saved.tensor is None:
            raise RuntimeError("expected the graph to be used once")
        if self._read:
            self._read[-1].append(saved)
        return saved.tensor

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, torch differentiates by this."""
        set_materialize_grads = FunctionCtx.set_materialize_grads

        def noted(ctx: Any, value: bool) -> None:
            ctx.takes_none = not value  # torch tells nobody
            set_materialize_grads(ctx, value)

        with ExitStack() as stack:
            for target, name, replacement in (
                (torch.autograd, "backward", self.backward),
                (torch.autograd, "grad", self.grad),
                (FunctionCtx, "set_materialize_grads", noted),
                (torch._C, "_current_graph_task_id", lambda: self._run),
                (torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: self._keeps_graph),
            ):
                stack.enter_context(patch.object(target, name, replacement))
            stack.enter_context(saved_tensors_hooks(_Saved, self._unpack))
            yield


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, GradientEdge) else [value]


def _edge(tensor: Tensor | GradientEdge) -> Edge:
    node, index, *_ = tensor if isinstance(tensor, GradientEdge) else torch.autograd.graph.get_gradient_edge(tensor)
    return node, index


def _roots(outputs: list[Tensor], grads: list[Tensor | None]) -> tuple[list[Edge], list[Tensor]]:
    pairs = itertools.zip_longest(outputs, grads)
    return [_edge(output) for output in outputs], [torch.ones_like(o) if g is None else g for o, g in pairs]


def _age(node: Node) -> float:
    return -float(node._sequence_nr())


def _dependencies(roots: list[Node]) -> dict[Node, int]:
    """From how many edges each node gets its gradient."""
    waiting, nodes = dict.fromkeys(roots, 0), list(dict.fromkeys(roots))
    for node in nodes:  # which grows
        for after, _ in node.next_functions:
            if after is not None:
                if after not in waiting:
                    waiting[after] = 0
                    nodes.append(after)
                waiting[after] += 1
    return waiting


def _arrive(arrived: dict[Node, list[Tensor | None]], edge: Edge, grad: Tensor) -> None:
    """Add a gradient to those that a node gets, in the type and shape of the forward pass."""
    node, index = edge
    metadata = node._input_metadata[index]
    if grad.device != metadata.device:
        raise RuntimeError(f"expected a gradient on {metadata.device} for {type(node).__name__}, got {grad.device}")
    known = arrived.setdefault(node, [None] * len(node._input_metadata))
    if grad.shape != tuple(metadata.shape):  # of an input that was broadcast
        grad = grad.sum_to_size(tuple(metadata.shape))
    grad, before = grad.to(metadata.dtype), known[index]
    known[index] = grad if before is None else before + grad
