"""The engine: what it saves, what it must not disturb, what it refuses."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import (
    POLICIES,
    AdditiveCoupling,
    Inverse,
    InvertibleModule,
    OnChannels,
    Sequential,
    invertible_roots,
    set_backprop,
)
from src.invertible.inspection.saved_bytes import kept_bytes
from src.models.blocks import ConvBlock
from src.models.iunet import IUNet

SAVING = [p for p in POLICIES if p != "stored"]


def convolutional(norm: str = "layer", dropout: float = 0.0) -> Callable[[int, int], nn.Module]:
    def construct(dims_in: int, dims_out: int) -> nn.Module:
        return nn.Sequential(ConvBlock(dims_in, dims_out, spatial_dims=2, norm=norm), nn.Dropout(dropout))

    return construct


def small_tree(norm: str = "layer", dropout: float = 0.0) -> Sequential:
    torch.manual_seed(0)
    subnet = convolutional(norm, dropout)
    couplings = [AdditiveCoupling(4, subnet, flip=bool(i % 2)) for i in range(3)]
    inner = AdditiveCoupling(2, subnet)
    return Sequential(*couplings, OnChannels(inner, 2), Inverse(AdditiveCoupling(4, subnet))).double()


def small_input() -> Tensor:
    return torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_and_gradients(net: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    net.zero_grad(set_to_none=True)
    loss = (net(x) ** 3).sum()
    loss.backward()
    return loss.detach(), [p.grad for p in net.parameters()]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes of distinct storages that autograd keeps for the backward pass, parameters apart."""
    return kept_bytes(net, lambda: net(x))


def value_marks(net: nn.Module) -> int:
    """Bytes of the numbers by which the engine notices that a parameter or constant has changed: one per tensor."""
    constants = (m for m in net.modules() if getattr(m, "buffers_are_constants", False))
    return 8 * (len(list(net.parameters())) + sum(len(m._buffers) for m in constants))


def live_storages() -> dict[int, torch.UntypedStorage]:
    """All distinct storages that Python can reach; holding them keeps their addresses from being used again."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]  # isinstance would wake lazy proxies
    return {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}


def test_saved_bytes_are_one_output_and_do_not_grow_with_depth() -> None:
    x = torch.randn(1, 8, 16, 16, 16).requires_grad_()
    saved = {}
    for couplings in (2, 16):
        net = IUNet((8, 16, 32), couplings, 3)
        set_backprop(net, "reversible")
        saved[couplings] = saved_bytes(net, x)
    assert saved[2] == saved[16]
    assert saved[16] <= 1.1 * x.numel() * x.element_size()


def test_what_the_graph_keeps_alive_beside_saved_tensors_does_not_grow_either() -> None:
    """The hooks see saved tensors only; this counts whatever else a graph might hold."""
    x = torch.randn(1, 8, 16, 16, 16).requires_grad_()
    growth = {}
    for couplings in (2, 16):
        net = IUNet((8, 16, 32), couplings, 3)
        set_backprop(net, "reversible")
        before = live_storages()
        y = net(x)
        # New storages only: what other tests left behind may be collected meanwhile.
        growth[couplings] = sum(s.nbytes() for pointer, s in live_storages().items() if pointer not in before)
        growth[couplings] -= value_marks(net)
        del y
    assert growth[16] <= growth[2] * 1.01
    assert growth[16] <= 1.1 * x.numel() * x.element_size()


def test_twenty_steps_stored_and_reversible_give_the_same_curve_and_weights() -> None:
    curves, weights = [], []
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        net = IUNet((4, 8), 3, 2, mixing={"init": "random"}).double()
        set_backprop(net, policy)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
        target = torch.randn_like(x)
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = ((net(x) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(torch.tensor(curve, dtype=torch.float64))
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert ((curves[0] - curves[1]) / curves[0]).abs().max() < 1e-10
    assert (weights[0] - weights[1]).norm() < 1e-10 * weights[0].norm()
    assert curves[0][-1] < curves[0][0]


def test_coupling_subnet_is_evaluated_once_in_backward() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    calls = []
    for coupling in net.modules():
        if isinstance(coupling, AdditiveCoupling):
            coupling.subnet.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    y = net(small_input())
    assert calls == [False] * 5
    y.sum().backward()
    assert calls == [False] * 5 + [True] * 5


@pytest.mark.parametrize("policy", POLICIES)
def test_batch_statistics_move_exactly_once_a_step(policy: str) -> None:
    nets = {p: small_tree("batch") for p in ("stored", policy)}
    for p, net in nets.items():
        set_backprop(net, p)
        for _ in range(2):
            loss_and_gradients(net, small_input())
    expected, found = (dict(net.named_buffers()) for net in (nets["stored"], nets[policy]))
    assert any("running_mean" in key for key in found)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("policy", SAVING)
def test_dropout_uses_one_mask_and_leaves_the_random_stream_alone(policy: str) -> None:
    results, after = [], []
    for p in ("stored", policy):
        net = small_tree(dropout=0.4)
        set_backprop(net, p)
        torch.manual_seed(3)
        results.append(loss_and_gradients(net, small_input()))
        after.append(torch.rand(1))
    assert results[0][0] == results[1][0]
    assert_same(results[1][1], results[0][1])
    assert after[0] == after[1]


@pytest.mark.parametrize("policy", SAVING)
def test_autocast_is_restored_in_backward_with_a_float32_stream(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        net = small_tree().float()
        set_backprop(net, p)
        dtypes: list[torch.dtype] = []
        first = net[0].subnet[0].conv0  # type: ignore[union-attr, index]
        first.register_forward_hook(lambda _m, _i, output, seen=dtypes: seen.append(output.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            y = net(small_input().float())
        assert y.dtype == torch.float32
        (y**3).sum().backward()
        assert set(dtypes) == {torch.bfloat16}
        results.append([p.grad for p in net.parameters()])
    for a, b in zip(*results, strict=True):
        assert a is not None
        assert b is not None
        assert (a - b).norm() < 2e-2 * a.norm() + 1e-3  # bfloat16 has 8 bits


def test_weights_used_inside_autocast_keep_their_graph_afterwards() -> None:
    """The engine's forward runs without a graph; its casts must not stay in autocast's cache."""
    net = small_tree().float()
    set_backprop(net, "reversible")
    x = small_input().float()
    with torch.autocast("cpu", torch.bfloat16):
        net(x).sum().backward()
        net.zero_grad(set_to_none=True)
        set_backprop(net, "stored")
        net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("policy", ["reversible", "checkpoint"])
def test_frozen_and_unused_parameters(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        net = small_tree()
        net[1].subnet.requires_grad_(False)  # type: ignore[union-attr]
        net[0].subnet.register_parameter("unused", nn.Parameter(torch.ones(2)))  # type: ignore[union-attr]
        set_backprop(net, p)
        results.append(loss_and_gradients(net, small_input())[1])
    assert_same(results[1], results[0])
    assert sum(g is None for g in results[0]) == 7


@pytest.mark.parametrize("policy", SAVING)
def test_frozen_network_still_passes_the_gradient_on(policy: str) -> None:
    gradients = []
    for p in ("stored", policy):
        net = small_tree().requires_grad_(False)
        set_backprop(net, p)
        x = small_input().requires_grad_()
        (net(x) ** 2).sum().backward()
        gradients.append(x.grad)
    assert_same([gradients[1]], [gradients[0]])


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("used", [0, 1])
def test_output_that_is_not_in_the_loss(policy: str, used: int) -> None:
    results = []
    for p in ("stored", policy):
        net = small_tree()
        set_backprop(net, p)
        y, logdet = net.forward_and_logdet(small_input().requires_grad_())
        loss = (y**2).sum() if used == 0 else (logdet**2).sum() + 0 * y.sum()
        loss.backward()
        results.append([q.grad for q in net.parameters()])
    assert_same(results[1], results[0])


@pytest.mark.parametrize("policy", SAVING)
def test_relu_before_and_after_in_place_before(policy: str) -> None:
    results = []
    for p in ("stored", policy):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), small_tree(), nn.ReLU(), nn.Conv2d(4, 1, 1)
        ).double()
        set_backprop(net, p)
        results.append(loss_and_gradients(net, small_input())[1])
    assert_same(results[1], results[0])


def test_in_place_change_of_the_output_is_refused_not_wrong() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    y = net(small_input()).relu_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("policy", POLICIES)
def test_callers_tensors_are_neither_freed_nor_changed(policy: str) -> None:
    net = small_tree()
    set_backprop(net, policy)
    x = small_input().requires_grad_()
    h = x * 1.0
    h_before = h.detach().clone()
    y = net(h)
    y_before = y.detach().clone()
    seed = torch.ones_like(y)
    y.backward(seed)
    assert torch.equal(h, h_before)
    assert torch.equal(y, y_before)
    assert torch.equal(seed, torch.ones_like(y))


def test_output_that_shares_the_inputs_memory_is_copied() -> None:
    net = Sequential()
    set_backprop(net, "reversible")
    x = small_input().requires_grad_()
    h = x * 1.0
    y = net(h)
    assert y.data_ptr() != h.data_ptr()
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


def test_double_backward_is_refused() -> None:
    net = small_tree()
    set_backprop(net, "reversible")
    x = small_input().requires_grad_()
    with pytest.raises(RuntimeError, match=r"double backward.*set_backprop"):
        torch.autograd.grad(net(x).sum(), x, create_graph=True)


@pytest.mark.parametrize("policy", ["reversible", "checkpoint"])
def test_autograd_grad_and_retain_graph(policy: str) -> None:
    net = small_tree(dropout=0.3)
    set_backprop(net, policy)
    x = small_input().requires_grad_()
    loss = (net(x) ** 2).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    (second,) = torch.autograd.grad(loss, x)
    assert torch.equal(first, second)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_grad_and_inference_mode(policy: str) -> None:
    net = small_tree()
    expected = net(small_input()).detach()
    set_backprop(net, policy)
    with torch.no_grad():
        y = net(small_input())
    assert not y.requires_grad
    assert torch.equal(y, expected)
    with torch.inference_mode():
        y = net(small_input())
        x = net.inverse(y)
    assert torch.equal(y, expected)
    assert (x - small_input()).abs().max() < 1e-12


def test_parameter_shared_by_two_layers_gets_both_gradients() -> None:
    results = []
    for policy in ("stored", "reversible"):
        torch.manual_seed(0)
        coupling = AdditiveCoupling(4, convolutional())
        net = Sequential(coupling, AdditiveCoupling(4, convolutional(), flip=True), coupling).double()
        set_backprop(net, policy)
        results.append(loss_and_gradients(net, small_input())[1])
    assert_same(results[1], results[0])


def test_layer_without_a_rule_uses_the_default() -> None:
    class Scale(InvertibleModule):
        """``y = exp(s) x``."""

        def __init__(self) -> None:
            super().__init__()
            self.s = nn.Parameter(torch.tensor(0.3))

        def forward(self, x: Tensor) -> Tensor:
            return self.s.exp() * x

        def inverse(self, y: Tensor) -> Tensor:
            return y / self.s.exp()

        def forward_and_logdet(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self(x), self.s * x[0].numel() * x.new_ones(x.shape[0])

    results = []
    for policy in POLICIES:
        net = Sequential(Scale(), AdditiveCoupling(4, convolutional()), Inverse(Scale())).double()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(std=0.3)
        set_backprop(net, policy)
        y, logdet = net.forward_and_logdet(small_input())
        ((y**3).sum() + (logdet**2).sum()).backward()
        results.append([p.grad for p in net.parameters()])
    for found in results[1:]:
        assert_same(found, results[0])


def test_layer_without_logdet_raises() -> None:
    class Doubling(InvertibleModule):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

        def inverse(self, y: Tensor) -> Tensor:
            return y / 2

    with pytest.raises(NotImplementedError, match="Doubling has no log-determinant"):
        Sequential(Doubling()).forward_and_logdet(small_input())


@pytest.mark.parametrize("policy", POLICIES)
def test_copies_and_pickles_keep_the_policy(policy: str) -> None:
    net = small_tree()
    set_backprop(net, policy)
    expected = loss_and_gradients(net, small_input())
    for copied in (copy.deepcopy(net), copy.copy(net)):
        loss, _ = loss_and_gradients(copied, small_input())
        assert loss == expected[0]
    iunet = IUNet((4, 8), 1, 2)
    set_backprop(iunet, policy)
    restored = pickle.loads(pickle.dumps(iunet))
    assert saved_bytes(restored, torch.randn(1, 4, 8, 8)) == saved_bytes(iunet, torch.randn(1, 4, 8, 8))


def test_names_and_parameters_are_the_same_under_every_policy() -> None:
    net = small_tree()
    names = list(net.state_dict())
    for policy in POLICIES:
        set_backprop(net, policy)
        assert list(net.state_dict()) == names


def test_unknown_policy_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"expected backprop to be one of reversible, stored.*got 'revers'"):
        set_backprop(small_tree(), "revers")


def test_roots_are_the_largest_invertible_parts() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), IUNet((4, 8), 1, 2), nn.ModuleDict({"b": small_tree()}))
    assert list(invertible_roots(net)) == ["1", "2.b"]
    assert invertible_roots(nn.Conv2d(1, 1, 1)) == {}


@pytest.mark.slow
def test_compiled_subnets() -> None:
    results = []
    for compiled in (False, True):
        net = small_tree().float()
        if compiled:
            for part in net.modules():
                if isinstance(part, AdditiveCoupling):
                    part.subnet = torch.compile(part.subnet)  # type: ignore[assignment]
        set_backprop(net, "reversible")
        results.append(loss_and_gradients(net, small_input().float())[1])
    assert_same(results[1], results[0], tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_compiled_networks(policy: str) -> None:
    net = small_tree("batch", dropout=0.3)
    set_backprop(net, policy)
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        called = torch.compile(net, backend="aot_eager") if compiled else net
        (called(small_input()) ** 3).sum().backward()
        results.append([p.grad for p in net.parameters()])
        net.zero_grad()
    assert_same(results[1], results[0])
