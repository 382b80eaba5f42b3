"""What a caller does between the forward and the backward pass: right as with plain autograd, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    AdditiveCoupling,
    GlowCoupling,
    Permutation,
    ResidualBlock,
    Sequential,
    set_backprop,
)
from src.invertible.engine.handover import refuse_transforms
from tests.invertible.engine.test_backprop import assert_same, small_input, small_tree
from tests.invertible.table.samples import dense

SAVING = [p for p in POLICIES if p != "stored"]


def exchange_parameters(net: nn.Module) -> None:
    """As ``load_state_dict(assign=True)`` does."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.full_like(parameter, 0.1)))


def assign_state(net: nn.Module) -> None:
    net.load_state_dict({name: torch.full_like(value, 0.1) for name, value in net.state_dict().items()}, assign=True)


def point_data_elsewhere(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.data = torch.full_like(parameter, 0.1)


def evaluate_a_part(net: nn.Module) -> None:
    net[1].eval()  # type: ignore[index]


def evaluate_all(net: nn.Module) -> None:
    net.eval()


def freeze(net: nn.Module) -> None:
    net.requires_grad_(False)


def run_again(net: nn.Module) -> None:
    net(2 * small_input())


CHANGES = [exchange_parameters, assign_state, point_data_elsewhere, evaluate_a_part, evaluate_all, freeze, run_again]


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("change", CHANGES)
def test_gradients_are_those_of_what_forward_used(change: Callable[[nn.Module], None], policy: str) -> None:
    results = []
    for p in ("stored", policy):
        net = small_tree("batch", dropout=0.3)
        set_backprop(net, p)
        torch.manual_seed(0)
        x, parameters = small_input().requires_grad_(), list(net.parameters())
        loss = (net(x) ** 3).sum()
        if p != "stored" or change is not point_data_elsewhere:  # which plain autograd does not notice
            change(net)
        state, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
        loss.backward()
        assert [m.training for m in net.modules()] == modes
        for name, value in net.state_dict().items():
            assert torch.equal(value, state[name]), name
        results.append([x.grad, *(q.grad for q in parameters)])
    assert_same(results[1], results[0])


@pytest.mark.parametrize("policy", SAVING)
def test_evaluation_statistics_that_move_before_backward(policy: str) -> None:
    """Plain autograd refuses to go on; the others start from the buffers that forward used."""
    nets = {p: small_tree("batch").eval() for p in ("stored", policy)}
    results = []
    for p, net in nets.items():
        set_backprop(net, p)
        loss = (net(small_input()) ** 3).sum()
        if p != "stored":
            for buffer in net.buffers():
                buffer.add_(1)
        loss.backward()
        results.append([q.grad for q in net.parameters()])
    assert_same(results[1], results[0])


@pytest.mark.parametrize("policy", SAVING)
def test_functional_call_differentiates_the_tensors_it_was_given(policy: str) -> None:
    """A step of meta-learning: fast weights, which are functions of the slow ones."""
    results = []
    for p in ("stored", policy):
        net = small_tree()
        set_backprop(net, p)
        rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        fast = {name: rate * parameter for name, parameter in net.named_parameters()}
        y = torch.func.functional_call(net, fast, (small_input(),))
        (y**3).sum().backward()
        results.append([rate.grad, *(q.grad for q in net.parameters())])
    assert_same(results[1], results[0])


@pytest.mark.parametrize("policy", SAVING)
def test_functional_call_of_an_inverse_by_fixed_points(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = Sequential(ResidualBlock(5, dense), AdditiveCoupling(5, dense)).double()
        set_backprop(net, p)
        rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        fast = {name: rate * parameter for name, parameter in net.named_parameters()}
        y = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
        x = torch.func.functional_call(Backwards(net), {f"net.{name}": value for name, value in fast.items()}, (y,))
        (x**3).sum().backward()
        results.append([rate.grad, y.grad])
    assert_same(results[1], results[0], tolerance=1e-8)


class Backwards(nn.Module):
    def __init__(self, net: Sequential) -> None:
        super().__init__()
        self.net = net

    def forward(self, y: Tensor) -> Tensor:
        return self.net.inverse(y)


def add_in_place(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter.add_(1.0)


def write_through_data(parameter: Tensor) -> None:
    parameter.data.mul_(1.1)


def fused_step(parameter: Tensor) -> None:
    """Torch's fused updates leave the version counter as it is."""
    parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam([parameter], lr=0.1, fused=True).step()
    parameter.grad = None


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("overwrite", [add_in_place, write_through_data, fused_step])
def test_overwritten_parameters_are_refused_by_name(
    overwrite: Callable[[Tensor], None], frozen: bool, policy: str
) -> None:
    net = small_tree()
    parameter = net[1].subnet[0].conv0.weight  # type: ignore[union-attr, index]
    parameter.requires_grad_(not frozen)
    set_backprop(net, policy)
    loss = net(small_input().requires_grad_()).sum()
    overwrite(parameter)
    with pytest.raises(RuntimeError, match=r"expected '.*subnet\.0\.conv0\.weight' to keep its values"):
        loss.backward()


def test_overwritten_constants_are_refused_by_name() -> None:
    net = Sequential(GlowCoupling(4, dense), Permutation(4), GlowCoupling(4, dense))
    set_backprop(net, "reversible")
    loss = net(torch.randn(2, 4)).sum()
    next(net[1].buffers()).copy_(torch.tensor([3, 2, 1, 0]))
    with pytest.raises(RuntimeError, match=r"expected '1\.\w+' to keep its values between forward and backward"):
        loss.backward()


def test_exchanged_parts_are_refused() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    loss = net(small_input()).sum()
    net[1].subnet = nn.Identity()
    with pytest.raises(RuntimeError, match="expected the modules of this Sequential to stay the same"):
        loss.backward()


def test_an_optimizer_step_between_two_backward_passes_is_refused() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    loss = (net(small_input()) ** 2).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="to keep its values between forward and backward"):
        loss.backward()


@pytest.mark.parametrize("policy", SAVING)
def test_an_error_in_the_middle_of_backward_leaves_the_network_as_it_was(policy: str) -> None:
    net = small_tree("batch", dropout=0.3)
    set_backprop(net, policy)
    before = {name: (id(p), p.detach().clone()) for name, p in net.named_parameters()}
    loss = (net(small_input()) ** 3).sum()
    buffers = {name: (id(b), b.clone()) for name, b in net.named_buffers()}
    fails = True

    def fail(*_: object) -> None:
        if fails and torch.is_grad_enabled():
            raise KeyboardInterrupt

    net[1].subnet.register_forward_pre_hook(fail)  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        loss.backward()
    fails = False
    for found, expected in ((net.named_parameters(), before), (net.named_buffers(), buffers)):
        for name, tensor in found:
            assert id(tensor) == expected[name][0]
            assert torch.equal(tensor, expected[name][1])
    assert all(module.training for module in net.modules())
    (net(small_input()) ** 3).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_batched_gradients_are_refused_in_plain_words() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    x = small_input().requires_grad_()
    y = net(x)
    with pytest.raises(RuntimeError, match=r"expected one gradient at a time.*set_backprop\(net, 'stored'\)"):
        torch.autograd.grad(y, x, torch.ones(3, *y.shape, dtype=y.dtype), is_grads_batched=True)


@pytest.mark.parametrize("policy", ["reversible", "memcnn"])
def test_transforms_are_refused_in_plain_words(policy: str) -> None:
    net = small_tree()
    set_backprop(net, policy)
    with pytest.raises(
        RuntimeError, match=rf"expected no transform of torch.func.*{policy}.*set_backprop\(net, 'stored'\)"
    ):
        torch.func.grad(lambda x: net(x).sum())(small_input())


def test_without_torchs_answer_transforms_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(x: Tensor) -> Tensor:
        with monkeypatch.context() as patch:
            patch.delattr(torch._C, "_are_functorch_transforms_active")
            refuse_transforms("reversible")
        return x.sum()

    torch.func.grad(refused)(small_input())
