"""Subnets whose output depends on buffers that they move: recomputation starts from those of the forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.invertible import POLICIES, AdditiveCoupling, ForeignModule, Inverse, OnChannels, Sequential, set_backprop
from tests.invertible.engine.test_backprop import assert_same
from tests.invertible.table.samples import dense

SAVING = [p for p in POLICIES if p != "stored"]


def spectral(dims_in: int, dims_out: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(dims_in, 8), nn.Tanh(), nn.Linear(8, dims_out))
    return nn.Sequential(*(nn.utils.parametrizations.spectral_norm(m) if isinstance(m, nn.Linear) else m for m in net))


def spectral_by_hook(dims_in: int, dims_out: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of the other, and in use all the same
        return nn.utils.spectral_norm(nn.Linear(dims_in, dims_out))


class RunningNormaliser(nn.Module):
    """Subtracts a running mean that it moves first, in training and in evaluation."""

    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.detach().mean(0), 0.3)
        return x - self.mean


class Counter(nn.Module):
    """Scales by a count of its calls, a buffer that each call replaces."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return x / self.calls


def running(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(RunningNormaliser(dims_in), nn.Linear(dims_in, dims_out), nn.Tanh())


def counting(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, dims_out), Counter(), nn.Tanh())


def batch_normalised(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dims_in, dims_out), nn.BatchNorm1d(dims_out), nn.Dropout(0.2))


SUBNETS = [spectral, spectral_by_hook, running, counting, batch_normalised]


@pytest.mark.parametrize("policy", SAVING)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("subnet", SUBNETS)
def test_gradients_and_buffers_are_those_of_one_evaluation(
    subnet: Callable[[int, int], nn.Module], training: bool, policy: str
) -> None:
    results, buffers = [], []
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for p in ("stored", policy):
        torch.manual_seed(0)
        shared = AdditiveCoupling(6, subnet)
        parts = [shared, AdditiveCoupling(6, subnet, flip=True), OnChannels(AdditiveCoupling(4, subnet), 2)]
        net = Sequential(*parts, Inverse(AdditiveCoupling(6, subnet)), shared).double().train(training)
        set_backprop(net, p)
        gradients: list[Tensor | None] = []
        for step in range(3):
            net.zero_grad()
            (net(x + step) ** 3).sum().backward()
            gradients += [q.grad for q in net.parameters()]
        results.append(gradients)
        buffers.append(dict(net.named_buffers()))
    assert_same(results[1], results[0])
    for name, value in buffers[0].items():
        torch.testing.assert_close(buffers[1][name], value, rtol=1e-10, atol=1e-12, msg=name)


class ActNormOfOthers(nn.Module):
    """Activation normalisation as many write it: initialised past autograd, by its first batch in either direction."""

    done: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("done", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if not self.done:
            self.log_scale.data.copy_(-x.detach().std(0).log())
            self.shift.data = -x.detach().mean(0)
            self.done.fill_(1)
        return (x + self.shift) * self.log_scale.exp()

    def inverse(self, y: Tensor) -> Tensor:
        if not self.done:
            self.log_scale.data.copy_(y.detach().std(0).log())
            self.done.fill_(1)
        return y * (-self.log_scale).exp() - self.shift


@pytest.mark.parametrize("policy", SAVING)
def test_a_layer_that_starts_from_its_first_batch_starts_once(policy: str) -> None:
    results = []
    x = 3 + 2 * torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for p in ("stored", policy):
        torch.manual_seed(0)
        actnorm = ForeignModule(ActNormOfOthers(6))
        net = Sequential(AdditiveCoupling(6, dense), actnorm, AdditiveCoupling(6, dense, flip=True)).double()
        set_backprop(net, p)
        (net(x) ** 3).sum().backward()
        results.append([*(q.grad for q in net.parameters()), *(q.detach() for q in net.parameters())])
    assert_same(results[1], results[0])
