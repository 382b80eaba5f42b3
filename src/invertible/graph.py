"""Invertible networks whose parts form a graph: several inputs and outputs, and conditions for chosen parts.

A `Graph` is built wire by wire; each wire knows its shape, so that parts can be made to fit it:

    graph = Graph()
    image, label = graph.input(4, 16, 16, name="image"), graph.condition(10, name="label")
    first, second = graph.add(Split([2, 2]), image, name="split")
    first = graph.add(AffineCoupling(first.shape[0], subnet, …), first, condition=label, name="coupling")
    net = graph.net(first, second)

    z_first, z_second = net(x, one_hot)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .composites import Composite
from .module import (
    BackStep,
    Condition,
    InvertibleModule,
    Position,
    State,
    Step,
    as_tuple,
    tensors_of,
)
from .on_conditions import OnConditions
from .shapes import Shape, as_state, output_shapes, show


@dataclass(frozen=True)
class Wire:
    """One tensor on its way through a graph: an output of a node, and its shape without the batch dimension."""

    node: str
    index: int
    shape: Shape
    is_condition: bool = False

    def __str__(self) -> str:
        return f"{self.node}.{self.index}" if self.index else self.node


@dataclass(frozen=True)
class Node:
    """A part of a graph: which wires it reads, which it makes, and which conditions steer it."""

    name: str
    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]
    conditions: tuple[Wire, ...] = ()


class Graph:
    """Builds a `GraphNet`: declare inputs and conditions, add parts, then name the outputs.

    Raises:
        ValueError: that names the node: for shapes that a part refuses, and wires that are read twice or lead
            nowhere.

    Example:
        >>> graph = Graph()
        >>> first, rest = graph.add(Split([1, 3]), graph.input(4, 8, 8, name="x"), name="split")
        >>> net = graph.net(graph.add(ActNorm(3), rest, name="norm"), first)
    """

    def __init__(self) -> None:
        self._inputs: list[Wire] = []
        self._conditions: dict[Wire, torch.dtype | None] = {}
        self._nodes: list[Node] = []
        self._parts: dict[str, InvertibleModule] = {}
        self._open: set[Wire] = set()

    def input(self, *shape: int, name: str) -> Wire:
        """Declare an input of shape (B, *shape); `GraphNet` takes them in the order of declaration."""
        wire = Wire(self._new(name), 0, shape)
        self._inputs.append(wire)
        self._open.add(wire)
        return wire

    def condition(self, *shape: int, name: str, dtype: torch.dtype | None = None) -> Wire:
        """Declare a condition of shape (B, *shape), which one part or several read.

        Labels and the like have a ``dtype`` of their own; by default, it is that of the part that reads the condition.
        """
        wire = Wire(self._new(name), 0, shape, is_condition=True)
        self._conditions[wire] = dtype
        return wire

    def add(
        self, part: InvertibleModule, *inputs: Wire, condition: Wire | Sequence[Wire] = (), name: str
    ) -> Wire | tuple[Wire, ...]:
        """Add a part that reads these wires, and return the wire or wires that it makes.

        Raises:
            ValueError: that names the part: for a wire that another part has read, or shapes that the part refuses.
            TypeError: for a class or a network in the place of a bijection.
        """
        conditions = (condition,) if isinstance(condition, Wire) else tuple(condition)
        where = f"node {self._new(name)!r} ({type(part).__name__})"
        if not isinstance(part, InvertibleModule):
            raise TypeError(f"{where}: expected an InvertibleModule, got {part!r}")
        self._check_wires(where, inputs, conditions)
        if bool(conditions) != part.takes_condition:
            expected = "a condition" if part.takes_condition else "no condition"
            raise ValueError(f"{where}: expected {expected}, got {show_wires(conditions)}")
        try:
            shapes = output_shapes(
                part,
                [wire.shape for wire in inputs],
                [wire.shape for wire in conditions],
                [self._conditions[wire] for wire in conditions],
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        outputs = tuple(Wire(name, index, shape) for index, shape in enumerate(shapes))
        self._nodes.append(Node(name, inputs, outputs, conditions))
        self._parts[name] = part
        self._open = self._open - set(inputs) | set(outputs)
        return as_state(outputs)

    def net(self, *outputs: Wire) -> GraphNet:
        """The network that ends in these wires, in this order.

        Raises:
            ValueError: for a wire that leads nowhere, or is named as an output though a part reads it, and for a
                condition that no part reads.
        """
        if set(outputs) != self._open or len(outputs) != len(self._open):
            raise ValueError(
                f"expected every unread wire exactly once as an output ({show_wires(sorted(self._open, key=str))}), "
                f"got {show_wires(outputs)}"
            )
        known = list(self._conditions)
        read = {wire for node in self._nodes for wire in node.conditions}
        if idle := [wire for wire in known if wire not in read]:
            raise ValueError(f"expected every condition to be read by a part, got {show_wires(idle)}, which none reads")
        parts = {
            # Nets hand the whole condition to their parts: one that reads only some of it is told which.
            node.name: self._parts[node.name]
            if node.conditions in ((), tuple(known))
            else OnConditions(self._parts[node.name], [known.index(wire) for wire in node.conditions])
            for node in self._nodes
        }
        return GraphNet(self._inputs, outputs, known, self._nodes, parts)

    def _new(self, name: str) -> str:
        taken = {wire.node for wire in (*self._inputs, *self._conditions)} | self._parts.keys()
        if name in taken:
            raise ValueError(f"expected an unused name, got {name!r}")
        # Parts are submodules, whose names must not be those of attributes.
        if not name.isidentifier() or hasattr(GraphNet((), (), (), (), {}), name):
            raise ValueError(f"expected the name to be an identifier and no attribute of GraphNet, got {name!r}")
        return name

    def _check_wires(self, where: str, inputs: Sequence[Wire], conditions: Sequence[Wire]) -> None:
        if not inputs:
            raise ValueError(f"{where}: expected at least one input")
        for wire in inputs:
            if wire not in self._open or inputs.count(wire) > 1:
                raise ValueError(f"{where}: expected unread wires of this graph, got {wire}")
        for wire in conditions:
            if wire not in self._conditions:
                raise ValueError(f"{where}: expected conditions of this graph, got {wire}")


class GraphNet(Composite):
    """The bijection that a `Graph` describes, from its inputs to its outputs, in the order of their declaration.

    A single input, output or condition is a tensor, several are a tuple. Printing it (``describe``) lists the nodes;
    `graph_plot.plot_graph` draws them.

    Args:
        inputs, outputs, conditions, nodes, parts: what `Graph.net` has collected.

    Raises:
        ValueError: for another number of tensors than the graph has inputs or outputs, and for conditions that are not
            the declared ones, of any size in space.

    Example:
        >>> graph = Graph()
        >>> net = graph.net(graph.add(ActNorm(4), graph.input(4, 8, 8, name="x"), name="norm"))
        >>> print(net.describe())
        x        input          -> 4×8×8
        norm     ActNorm  x     -> 4×8×8
        outputs           norm  -> 4×8×8
    """

    def __init__(
        self,
        inputs: Sequence[Wire],
        outputs: Sequence[Wire],
        conditions: Sequence[Wire],
        nodes: Sequence[Node],
        parts: dict[str, InvertibleModule],
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.conditions = tuple(inputs), tuple(outputs), tuple(conditions)
        self.nodes = tuple(nodes)
        for node in nodes:
            self.add_module(node.name, parts[node.name])

    def part(self, name: str) -> InvertibleModule:
        """The part of that name."""
        return self._modules[name]  # type: ignore[return-value]

    def run(self, x: State, step: Step) -> State:
        wires = self._assign(self.inputs, x)
        for node in self.nodes:
            y = step(self.part(node.name), as_state([wires.pop(wire) for wire in node.inputs]))
            wires |= zip(node.outputs, tensors_of(y), strict=True)
        return as_state([wires[wire] for wire in self.outputs])

    def run_back(self, position: Position, step: BackStep) -> None:
        states = self._assign(self.outputs, position.state)
        grads: dict[Wire, Tensor | None] = dict(zip(self.outputs, as_tuple(position.grad), strict=True))
        position.state = position.grad = ()
        for node in reversed(self.nodes):
            at_node = Position(*(as_state([known.pop(wire) for wire in node.outputs]) for known in (states, grads)))
            step(self.part(node.name), at_node)
            states |= zip(node.inputs, tensors_of(at_node.state), strict=True)
            grads |= zip(node.inputs, as_tuple(at_node.grad), strict=True)
        position.state, position.grad = (as_state([known[wire] for wire in self.inputs]) for known in (states, grads))

    def inverted(self) -> GraphNet:
        nodes = [replace(node, inputs=node.outputs, outputs=node.inputs) for node in reversed(self.nodes)]
        parts = {node.name: self.part(node.name).inverted() for node in nodes}
        return GraphNet(self.outputs, self.inputs, self.conditions, nodes, parts)

    def check_condition(self, condition: Condition) -> None:
        super().check_condition(condition)
        found = [tuple(tensor.shape[1:]) for tensor in tensors_of(condition)]
        # Only images may have another size than the graph was built for.
        fits = len(found) == len(self.conditions) and all(
            len(shape) == len(wire.shape) and shape[:1] == wire.shape[:1]
            for shape, wire in zip(found, self.conditions, strict=True)
        )
        if not fits:
            expected = ", ".join(f"{wire} of shape {wire.shape}" for wire in self.conditions)
            raise ValueError(f"expected the conditions {expected}, without the batch dimension, got shapes {found}")

    def describe(self) -> str:
        """The graph as text, one line per node: name, kind, what it reads with shapes, what it makes."""
        rows = [(str(wire), "input", "", show([wire.shape])) for wire in self.inputs]
        rows += [(str(wire), "condition", "", show([wire.shape])) for wire in self.conditions]
        for node in self.nodes:
            reads = show_wires(node.inputs) + (f" | {show_wires(node.conditions)}" if node.conditions else "")
            rows.append((node.name, self.kind(node), reads, show([wire.shape for wire in node.outputs])))
        rows.append(("outputs", "", show_wires(self.outputs), show([wire.shape for wire in self.outputs])))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        layout = "  ".join(f"{{:{width}}}" for width in widths) + "  -> {}"
        return "\n".join(layout.format(*row) for row in rows)

    def kind(self, node: Node) -> str:
        """The class of a node's part."""
        part = self.part(node.name)
        return type(part.part if isinstance(part, OnConditions) else part).__name__

    def _assign(self, wires: tuple[Wire, ...], state: State) -> dict[Wire, Tensor]:
        tensors = tensors_of(state)
        if len(tensors) != len(wires):
            raise ValueError(f"expected {len(wires)} tensors ({show_wires(wires)}), got {len(tensors)}")
        return dict(zip(wires, tensors, strict=True))


def show_wires(wires: Sequence[Wire]) -> str:
    """``a, b.1``."""
    return ", ".join(map(str, wires)) or "none"
