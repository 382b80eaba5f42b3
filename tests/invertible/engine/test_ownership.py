"""In the engine's forward pass, layers overwrite states that nobody else can see, and only those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.live_bytes import LiveBytes
from src.invertible import AdditiveCoupling, InvertibleModule, OnChannels, OrthogonalMixing, Sequential, set_backprop
from src.invertible.engine.reversible import keep_input
from tests.invertible.engine.test_backprop import assert_same, small_input, small_tree

# Keeps tensors of a forward pass in a list, and returns what removes it again.
Watch = Callable[[Sequential, list[tuple[Tensor, Tensor]]], Callable[[], None]]
CHANNELS, SIDE = 4, 32


def note(kept: list[tuple[Tensor, Tensor]], *tensors: Any) -> None:
    kept.extend((tensor, tensor.detach().clone()) for tensor in tensors)


def inputs_and_outputs(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    parts = [m for m in net.modules() if isinstance(m, InvertibleModule)]
    handles = [m.register_forward_hook(lambda _, x, y: note(kept, *x, y)) for m in parts]
    return lambda: [handle.remove() for handle in handles] and None


def inputs_of_couplings(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    couplings = [m for m in net.modules() if isinstance(m, AdditiveCoupling)]
    handles = [m.register_forward_pre_hook(lambda _, x: note(kept, *x)) for m in couplings]
    return lambda: [handle.remove() for handle in handles] and None


def what_subnets_read(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    subnets = [m.subnet for m in net.modules() if isinstance(m, AdditiveCoupling)]
    handles = [m.register_forward_hook(lambda _, x, y: note(kept, *x, y)) for m in subnets]
    return lambda: [handle.remove() for handle in handles] and None


def all_modules_of_the_process(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    def hook(module: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> None:
        if isinstance(module, InvertibleModule):  # an activation inside a subnet may overwrite its input
            note(kept, *x, y)

    return nn.modules.module.register_module_forward_hook(hook).remove


def watchers(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    for module in net.modules():
        if isinstance(module, InvertibleModule):
            module.watcher = lambda call, x, condition: note(kept, x)
    return lambda: None


def replaced_methods(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    def replace(module: AdditiveCoupling) -> None:
        inner = module.forward

        def forward(x: Tensor, condition: Any = None) -> Tensor:
            note(kept, x, y := inner(x, condition))
            return y

        module.forward = forward  # type: ignore[method-assign]

    for part in net:
        if isinstance(part, AdditiveCoupling):
            replace(part)
    return lambda: None


WATCHES = [
    inputs_and_outputs,
    inputs_of_couplings,
    what_subnets_read,
    all_modules_of_the_process,
    watchers,
    replaced_methods,
]


@pytest.mark.parametrize("watch", WATCHES)
def test_what_others_keep_of_a_forward_pass_keeps_its_numbers(watch: Watch) -> None:
    gradients = []
    for policy in ("stored", "reversible"):
        net, kept = small_tree(), []  # type: ignore[var-annotated]
        set_backprop(net, policy)
        remove = watch(net, kept)
        x = small_input().requires_grad_()
        try:
            loss = (net(x * 1.0) ** 3).sum()
        finally:
            remove()
        loss.backward()
        assert kept
        assert all(torch.equal(tensor, value) for tensor, value in kept)
        gradients.append([x.grad, *(p.grad for p in net.parameters())])
    assert_same(gradients[1], gradients[0], 1e-10)


def subnets_at_work(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    for subnet in [m.subnet for m in net.modules() if isinstance(m, AdditiveCoupling)]:
        subnet.register_forward_hook(lambda _, x, y: note(kept, *x, y))
    return lambda: None


def gradients_of_subnets(net: Sequential, kept: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    for subnet in [m.subnet for m in net.modules() if isinstance(m, AdditiveCoupling)]:
        subnet.register_full_backward_hook(lambda _, grads, grad_outputs: note(kept, *grads, *grad_outputs))
    return lambda: None


@pytest.mark.parametrize("watch", [subnets_at_work, gradients_of_subnets])
def test_what_hooks_keep_of_a_backward_pass_keeps_its_numbers(watch: Watch) -> None:
    net, kept = small_tree(), []  # type: ignore[var-annotated]
    set_backprop(net, "reversible")
    watch(net, kept)
    x = small_input().requires_grad_()
    y = net(x * 1.0)
    kept.clear()
    (y**3).sum().backward()
    assert kept
    assert all(torch.equal(tensor, value) for tensor, value in kept)


def test_the_callers_input_and_kept_inputs_keep_their_numbers() -> None:
    gradients = []
    for policy in ("stored", "reversible"):
        net = small_tree()
        set_backprop(net, policy)
        keep_input(net[1])
        x = small_input().requires_grad_() * 1.0
        before = x.detach().clone()
        (net(x) ** 3).sum().backward()
        assert torch.equal(x, before)
        gradients.append([p.grad for p in net.parameters()])
    assert_same(gradients[1], gradients[0], 1e-10)


class Keeping(InvertibleModule):
    """The identity, which keeps its input and returns its output as another leaf of the tree gets it."""

    def __init__(self, returns: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.returns = returns

    def forward(self, x: Tensor) -> Tensor:
        y = self.returns(x)
        note(self.kept, x, y)
        return y

    def inverse(self, y: Tensor) -> Tensor:
        return y


class Residual(AdditiveCoupling):
    """Reads its input after the coupling that it inherits has run."""

    def forward(self, x: Tensor, condition: Any = None) -> Tensor:
        return 0.5 * (super().forward(x, condition) + x)


@pytest.mark.parametrize("returns", [lambda x: x, Tensor.clone, Tensor.detach, lambda x: x[:]])
def test_what_a_leaf_keeps_keeps_its_numbers(returns: Callable[[Tensor], Tensor]) -> None:
    tree = small_tree()
    leaf = Keeping(returns)
    net = Sequential(tree[0], leaf, *tree[1:])
    set_backprop(net, "reversible")
    net(small_input().requires_grad_() * 1.0)
    assert leaf.kept
    assert all(torch.equal(tensor, value) for tensor, value in leaf.kept)


def test_a_subclass_may_read_its_input_after_the_coupling() -> None:
    torch.manual_seed(0)
    net = Sequential(*small_tree()[:1], Residual(4, lambda a, b: nn.Conv2d(a, b, 1)).double())
    x = small_input().requires_grad_()
    expected = net(x * 1.0)
    set_backprop(net, "reversible")
    torch.testing.assert_close(net(x * 1.0), expected, rtol=1e-12, atol=1e-12)


def chain(*inner: InvertibleModule) -> Sequential:
    def subnet(a: int, b: int) -> nn.Module:
        return nn.Conv2d(a, b, 3, padding=1)

    couplings = [AdditiveCoupling(CHANNELS, subnet, flip=bool(i % 2)) for i in range(4)]
    return Sequential(*couplings[:2], *inner, *couplings[2:])


def forward_peak(net: Sequential, watched: bool = False) -> float:
    """What a forward pass has alive at its worst moment, in states, without the caller's input."""
    set_backprop(net, "reversible")
    kept: list[tuple[Tensor, Tensor]] = []
    remove = inputs_and_outputs(net, kept) if watched else lambda: None
    x = torch.zeros(1, CHANNELS, SIDE, SIDE).requires_grad_()
    with LiveBytes() as live:
        net(x)
    remove()
    return live.peak / (4 * x.numel())


def test_a_forward_pass_has_one_state_and_a_shift_alive() -> None:
    assert forward_peak(chain()) <= 1.5 * 1.02
    assert forward_peak(chain(), watched=True) > 2


def test_channels_are_written_to_their_place() -> None:
    net = chain(OnChannels(OrthogonalMixing(CHANNELS // 2), CHANNELS // 2))
    assert forward_peak(net) <= 2 * 1.02  # the channels before and after the mixing beside the state


def test_the_engine_widens_a_state_for_itself() -> None:
    net = chain()
    set_backprop(net, "reversible")
    x = torch.zeros(1, CHANNELS, SIDE, SIDE, dtype=torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16), LiveBytes() as live:
        y = net(x)
    assert y.dtype == torch.float32
    # One state, and in half precision: the half that is read, and the shift.
    assert live.peak <= 1.5 * 1.03 * 4 * x.numel()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
