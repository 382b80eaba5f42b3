"""What memcnn may free: the states between the leaves of one call, and never what somebody else holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, AffineCoupling, ResidualBlock, Sequential, set_backprop
from tests.invertible.engine.test_backprop import assert_same
from tests.invertible.engine.test_parameter_hooks import graph_of_two
from tests.invertible.table.samples import dense

Used = Callable[[list[Sequential], Tensor], list[Tensor]]


def nets(policy: str) -> list[Sequential]:
    torch.manual_seed(0)
    made = [Sequential(AdditiveCoupling(6, dense), AffineCoupling(6, dense, flip=True)).double() for _ in range(2)]
    for net in made:
        set_backprop(net, policy)
    return made


def one_behind_the_other(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    y = nets[0](x)
    return [y, nets[1](y)]


def there_and_back(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    y = nets[0](x)
    return [y, nets[0].inverse(y)]


def with_logdet_there_and_back(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    y, logdet = nets[0].forward_and_logdet(x)
    return [y, logdet, *nets[0].inverse_and_logdet(y)]


def twice_into_the_same(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    y = nets[0](x)
    return [y, nets[1](y), nets[1](y)]


def as_a_list_member(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    """A graph of roots: nn.Module code of a user that reads a state in several places."""
    y = nets[0](x)
    return [nets[1](y) + y, y[:, :3] * 2]


def seen_by_hooks(nets: list[Sequential], x: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    for part in nets[0]:
        part.register_forward_hook(lambda _m, args, y: seen.extend((args[0], y)))
    y = nets[0](x)
    # Copied here already: under `reversible`, a caller of a hook sees tensors without a graph.
    return [y, *(part.detach().clone() for part in seen)]


USES = [one_behind_the_other, there_and_back, with_logdet_there_and_back, twice_into_the_same, as_a_list_member]


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("use", [*USES, seen_by_hooks])
def test_what_a_caller_holds_stays_readable(use: Used, policy: str) -> None:
    results = []
    for p in ("stored", policy):
        used = nets(p)
        x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        held = use(used, x)
        assert all(part.untyped_storage().nbytes() for part in held)
        values = [part.detach().clone() for part in held]
        sum(((part + 0.3) ** 3).sum() for part in held if part.requires_grad).backward()  # type: ignore[union-attr]
        assert all(torch.equal(part, value) for part, value in zip(held, values, strict=True))
        results.append([*values, x.grad, *(q.grad for net in used for q in net.parameters())])
    assert_same(results[1], results[0])


def test_inverse_and_logdet_of_the_base_class_is_one_node() -> None:
    torch.manual_seed(0)
    net = ResidualBlock(6, dense).double()
    set_backprop(net, "reversible")
    y = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    x, logdet = net.inverse_and_logdet(y * 1.0)
    assert x.grad_fn is logdet.grad_fn
    assert type(x.grad_fn).__name__ == "HandOverBackward"


@pytest.mark.parametrize("policy", ["reversible", "checkpoint", "memcnn"])
def test_unused_and_frozen_parameters(policy: str) -> None:
    class PartlyUsed(nn.Module):
        def __init__(self, dims_in: int, dims_out: int) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(dims_in, dims_out), nn.Linear(dims_in, dims_out)
            self.frozen = nn.Linear(dims_out, dims_out).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.frozen(self.used(x)))

    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = Sequential(AdditiveCoupling(6, PartlyUsed), AdditiveCoupling(6, PartlyUsed, flip=True)).double()
        set_backprop(net, p)
        (net(torch.ones(2, 6, dtype=torch.float64)) ** 3).sum().backward()
        results.append([q.grad for q in net.parameters()])
    assert_same(results[1], results[0])
    assert sum(q is None for q in results[0]) == 8


@pytest.mark.parametrize("used", [0, 1])
def test_an_output_outside_the_loss_is_rebuilt_too(used: int) -> None:
    results = []
    for p in ("stored", "memcnn"):
        torch.manual_seed(0)
        net, x = graph_of_two().double(), torch.randn(3, 6, dtype=torch.float64).requires_grad_()
        set_backprop(net, p)
        (net(x)[used] ** 2).sum().backward()
        # memcnn differentiates every output, so that what has no influence has a gradient of zeros.
        results.append([x.grad, *(torch.zeros_like(q) if q.grad is None else q.grad for q in net.parameters())])
    assert_same(results[1], results[0])
