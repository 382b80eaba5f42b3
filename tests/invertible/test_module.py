"""Composition, couplings' arguments, and what the library must not depend on."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn

from src.invertible import AdditiveCoupling, Inverse, OnChannels, OrthogonalMixing, Sequential


def identity_subnet(dims_in: int, dims_out: int) -> nn.Module:
    return nn.Conv1d(dims_in, dims_out, 1)


def test_named_sequential_and_its_parts() -> None:
    first, second = OrthogonalMixing(2), OrthogonalMixing(2)
    net = Sequential(OrderedDict(first=first, second=second))
    assert list(net) == [first, second]
    assert net[1] is second
    assert len(net) == 2
    assert "first.matrices.theta" in net.state_dict()


def test_sequential_refuses_what_is_not_invertible() -> None:
    with pytest.raises(TypeError, match="expected an InvertibleModule as part '1', got ReLU"):
        Sequential(OrthogonalMixing(2), nn.ReLU())  # type: ignore[arg-type]


def test_inverse_of_an_inverse_is_the_module() -> None:
    module = OrthogonalMixing(2)
    assert Inverse(module).inverted() is module


def test_on_channels_leaves_the_kept_channels_alone() -> None:
    net = OnChannels(OrthogonalMixing(2, init="random"), 3)
    x = torch.randn(1, 5, 4)
    y = net(x)
    assert torch.equal(y[:, :3], x[:, :3])
    assert not torch.equal(y[:, 3:], x[:, 3:])
    with pytest.raises(ValueError, match="expected more than the 3 kept channels, got 3"):
        net(x[:, :3])
    with pytest.raises(ValueError, match="at least one kept channel, got num_kept=0"):
        OnChannels(OrthogonalMixing(2), 0)


@pytest.mark.parametrize("flip", [False, True])
def test_coupling_changes_one_group_only(flip: bool) -> None:
    coupling = AdditiveCoupling(5, identity_subnet, split=2, flip=flip)
    x = torch.randn(1, 5, 4)
    y = coupling(x)
    read, changed = coupling.groups(torch.arange(5.0)[None])
    assert [g.shape[1] for g in (read, changed)] == ([3, 2] if flip else [2, 3])
    read_channels, changed_channels = read[0].long(), changed[0].long()
    assert torch.equal(y[:, read_channels], x[:, read_channels])
    torch.testing.assert_close(y[:, changed_channels], x[:, changed_channels] + coupling.subnet(x[:, read_channels]))


@pytest.mark.parametrize("split", [0, 5])
def test_coupling_refuses_an_empty_group(split: int) -> None:
    with pytest.raises(ValueError, match=f"split between 1 and channels - 1, got split={split}, channels=5"):
        AdditiveCoupling(5, identity_subnet, split=split)


def test_coupling_refuses_another_number_of_channels() -> None:
    with pytest.raises(ValueError, match="expected 4 channels, got 5"):
        AdditiveCoupling(4, identity_subnet)(torch.zeros(1, 5, 4))


def test_library_and_models_know_no_lightning_hydra_or_wandb() -> None:
    program = (
        "import sys, pkgutil, importlib, src.invertible, src.models\n"
        "for package in (src.invertible, src.models):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        if module.name != 'src.invertible.engine.memcnn_policy':\n"
        "            importlib.import_module(module.name)\n"
        "found = {'lightning', 'pytorch_lightning', 'hydra', 'wandb', 'memcnn'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
