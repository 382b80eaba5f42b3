"""Graphs and reshaping: their lines of the table."""

from __future__ import annotations

from typing import Any

import torch

from src.invertible import OnChannels, Sequential
from src.invertible.graph import Graph, GraphNet
from src.invertible.layers.coupling import AdditiveCoupling
from src.invertible.layers.linear import Permutation
from src.invertible.layers.mixing import OrthogonalMixing
from src.invertible.layers.resampling import Downsampling
from src.invertible.layers.reshaping import Concat, Reshape, Split
from tests.invertible.table.samples import SPATIAL, Case, subnet


def branches(spatial_dims: int, size: tuple[int, ...]) -> GraphNet:
    """Split, one branch through two layers, swap, join, and a chain behind it."""
    graph = Graph()
    x = graph.input(5, *size, name="x")
    first, second = split(graph, [2, 3], x, "split")
    first = one(graph.add(AdditiveCoupling(2, subnet(spatial_dims)), first, name="coupling"))
    first = one(graph.add(OrthogonalMixing(2, init="random"), first, name="mixing"))
    y = one(graph.add(Concat([3, 2]), second, first, name="join"))
    parts = Sequential(AdditiveCoupling(5, subnet(spatial_dims), flip=True), OnChannels(OrthogonalMixing(2), 3))
    return graph.net(one(graph.add(parts, y, name="chain")))


def one(wires: Any) -> Any:
    """The only wire that a part makes."""
    assert not isinstance(wires, tuple)
    return wires


def split(graph: Graph, sizes: list[int], x: Any, name: str) -> tuple[Any, ...]:
    wires = graph.add(Split(sizes), x, name=name)
    assert isinstance(wires, tuple)
    return wires


LAYERS: dict[str, Case] = {}
for d, size in SPATIAL.items():
    LAYERS |= {
        f"graph-{d}d": (lambda d=d, size=size: branches(d, size), (2, 5, *size)),
        f"reshape-{d}d": (
            lambda d=d, size=size: Sequential(
                AdditiveCoupling(2, subnet(d)), Reshape((2, *size)), Permutation(2 * torch.Size(size).numel())
            ),
            (2, 2, *size),
        ),
        f"split-concat-{d}d": (
            lambda d=d: Sequential(Split([1, 3], dim=2), Concat([1, 3], dim=2), Downsampling(2, spatial_dims=d)),
            (2, 2, *(4, 4, 4)[:d]),
        ),
    }
