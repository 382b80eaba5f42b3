"""The walk overwrites output and gradient where nobody else can see them, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from src.invertible import POLICIES, AffineCoupling, Sequential, set_backprop
from tests.invertible.engine.test_backprop import assert_same, small_input, small_tree
from tests.invertible.table.samples import dense

# Back from an output by a loss, and what a caller then holds, with the numbers it must hold.
Use = Callable[[Tensor], list[tuple[Tensor, Tensor]]]


def unchanged(tensor: Tensor) -> tuple[Tensor, Tensor]:
    return tensor.detach(), tensor.detach().clone()


def nothing_held(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    (y**3).sum().backward()
    return []


def output_held(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    held = [unchanged(y)]
    (y**3).sum().backward()
    return held


def view_of_the_output_held(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    held = [unchanged(y[:, :1])]
    loss = (y**3).sum()
    del y
    loss.backward()
    return held


def numbers_of_the_output_held(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    numbers = y.detach().numpy()
    held = [(torch.from_numpy(numbers), y.detach().clone())]
    loss = (y**3).sum()
    del y
    loss.backward()
    return held


def gradient_kept_by_a_hook(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    seen: list[Tensor] = []
    y.register_hook(seen.append)
    expected = 3 * y.detach() ** 2
    (y**3).sum().backward()
    return [(seen[0], expected)]


def gradient_kept_by_a_hook_of_the_node(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    seen: list[Tensor] = []
    y.grad_fn.register_hook(lambda _grad_inputs, grad_outputs: seen.extend(grad_outputs))  # type: ignore[union-attr]
    expected = 3 * y.detach() ** 2
    (y**3).sum().backward()
    return [(seen[0], expected)]


def gradient_retained(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    y.retain_grad()
    (y**3).sum().backward()
    assert y.grad is not None
    return [(y.grad, 3 * y.detach() ** 2)]


def gradient_given(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    gradient = 3 * y.detach() ** 2
    held = [unchanged(gradient)]
    y.backward(gradient)
    return held


def gradient_shared_with_a_leaf(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    offset = torch.zeros_like(y).requires_grad_()
    (((y + offset) ** 3) / 1).sum().backward()
    assert offset.grad is not None
    return [(offset.grad, 3 * y.detach() ** 2)]


def gradient_shared_with_the_same_output(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    half = y * 0.5
    del y
    ((half + half) ** 3).sum().backward()
    return []


def one_number_for_all(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    y.sum().backward()
    return []


def other_memory_layout(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    (y.transpose(-1, -2).contiguous() ** 3).sum().backward()
    return []


def graph_kept(y: Tensor) -> list[tuple[Tensor, Tensor]]:
    loss = (y**3).sum()
    del y
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    return []


USES = [
    nothing_held,
    output_held,
    view_of_the_output_held,
    numbers_of_the_output_held,
    gradient_kept_by_a_hook,
    gradient_kept_by_a_hook_of_the_node,
    gradient_retained,
    gradient_given,
    gradient_shared_with_a_leaf,
    gradient_shared_with_the_same_output,
    one_number_for_all,
    other_memory_layout,
    graph_kept,
]


def gradients_of(use: Use, policy: str) -> list[Tensor | None]:
    """Gradients of a network with a tensor of its own behind and before it; checks what the caller holds."""
    net = small_tree()
    set_backprop(net, policy)
    x = small_input().requires_grad_()
    for held, expected in use(net(x * 1.0)):
        torch.testing.assert_close(held, expected, rtol=1e-10, atol=1e-10)
    return [x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("use", USES)
def test_what_a_caller_holds_keeps_its_numbers(use: Use, policy: str) -> None:
    if use is graph_kept and policy == "memcnn":
        pytest.skip("memcnn frees what it keeps")
    assert_same(gradients_of(use, policy), gradients_of(use, "stored"), 1e-10)


def test_what_hooks_of_saved_tensors_hold_keeps_its_numbers() -> None:
    net, kept = small_tree(), []
    set_backprop(net, "reversible")

    def pack(tensor: Tensor) -> Tensor:
        kept.append(unchanged(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = net(small_input().requires_grad_() * 1.0)
    nothing_held(y)
    assert kept
    assert all(torch.equal(tensor, value) for tensor, value in kept)
    with torch.autograd.graph.save_on_cpu():
        assert_same(gradients_of(nothing_held, "reversible"), gradients_of(nothing_held, "stored"), 1e-10)


def test_nothing_is_copied_where_nobody_can_see_it() -> None:
    net = Sequential()
    set_backprop(net, "reversible")
    x = small_input().requires_grad_() * 1.0
    y = net(x)
    places: list[int] = []
    for tensor in (x, y):
        tensor.register_hook(lambda grad: places.append(grad.data_ptr()))
    del tensor
    (y**3).sum().backward()
    assert places[0] == places[1]  # a sequence of no parts hands its gradient on


def test_without_torchs_count_all_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients_of(nothing_held, "reversible")
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    assert_same(gradients_of(nothing_held, "reversible"), expected, 0)


@pytest.mark.parametrize("used", [(True, False), (False, True), (True, True)])
def test_log_determinants_come_along(used: tuple[bool, bool]) -> None:
    results = []
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        net = Sequential(AffineCoupling(6, dense), AffineCoupling(6, dense, flip=True)).double()
        set_backprop(net, policy)
        x = torch.randn(3, 6, dtype=torch.float64).requires_grad_()
        y, logdet = net.forward_and_logdet(x * 1.0)
        terms = [(y**3).sum(), (logdet**2).sum()]
        sum(term for term, is_used in zip(terms, used, strict=True) if is_used).backward()  # type: ignore[union-attr]
        results.append([x.grad, *(p.grad for p in net.parameters())])
    assert_same(results[1], results[0], 1e-10)
