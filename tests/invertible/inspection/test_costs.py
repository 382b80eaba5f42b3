"""The inspector against what is known of small networks, and its command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

import inspect_net
from src.config.composition import compose_config
from src.invertible import (
    POLICIES,
    ActNorm,
    AdditiveCoupling,
    FreiaModule,
    Inverse,
    OrthogonalMixing,
    Sequential,
    set_backprop,
)
from src.invertible.engine.reversible import keep_input
from src.invertible.inspection.costs import Inspection, inspect
from src.invertible.inspection.reconstruction import reconstruction_errors
from src.invertible.inspection.report import as_text, plot_inspection
from src.invertible.layers.affine import AffineCoupling
from src.utils.errors import ConfigError
from tests.invertible.engine.test_backprop import saved_bytes, small_input, small_tree, value_marks
from tests.invertible.inspection.test_reconstruction import Misses
from tests.invertible.table.samples import dense

STATE = small_input().numel() * 8


@pytest.fixture(scope="module")
def found() -> Inspection:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), small_tree("batch", dropout=0.3)).double()
    return inspect(net, small_input(), repeats=1)


def test_blocks_and_parameters(found: Inspection) -> None:
    assert [block.name for block in found.blocks] == ["1.0", "1.1", "1.2", "1.3.inner", "1.4"]
    assert [block.kind for block in found.blocks] == ["AdditiveCoupling"] * 4 + ["Inverse(AdditiveCoupling)"]
    assert [block.shapes for block in found.blocks] == [[(2, c, 6, 6)] for c in (4, 4, 4, 2, 4)]
    assert found.elsewhere_parameters == 4 * 4 + 4
    assert found.num_parameters == 20 + sum(block.num_parameters for block in found.blocks)
    assert found.input_bytes == STATE
    for block in found.blocks:
        assert min(block.forward_s, block.inverse_s, *block.backward_s.values()) > 0
        assert block.own_error < 1e-14 and block.rebuilt_error < 1e-14


def test_saved_bytes_of_each_policy(found: Inspection) -> None:
    for block in found.blocks[:-1]:
        state = torch.Size(block.shapes[0]).numel() * 8
        assert block.saved_bytes["reversible"] == 0
        assert block.saved_bytes["checkpoint"] == state or block.name == "1.3.inner"
        assert block.saved_bytes["stored"] > state / 2, "at least the half that is read"
    assert found.blocks[-1].saved_bytes["reversible"] == STATE, "the output"
    # Without what lies elsewhere: random states of 5 KiB, which are nothing only beside states of a real size.
    order = [sum(b.saved_bytes[policy] for b in found.blocks) for policy in ("reversible", "checkpoint", "stored")]
    assert order == sorted(order) and len(set(order)) == 3
    assert set(found.elsewhere_bytes) == set(POLICIES)


@pytest.mark.parametrize("policy", ["reversible", "stored", "checkpoint"])
def test_the_total_is_that_of_the_hooks(policy: str, found: Inspection) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1), small_tree("batch", dropout=0.3)).double()
    set_backprop(net, policy)
    # Beside these, Python sees random states and the output, if no one has saved it.
    more = found.total_bytes(policy) - saved_bytes(net, small_input().requires_grad_() * 1.0)
    assert 0 <= more <= STATE + 8 * torch.get_rng_state().nbytes + 1024


class KeepsAState(nn.Module):
    """Keeps a tensor of a state's size, for which the allocator takes what a block before it has freed."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = torch.ones_like(x)
        return x


def test_memory_that_a_block_has_freed_is_no_longer_its_own() -> None:
    net = nn.Sequential(small_tree(), KeepsAState())
    found = inspect(net, small_input(), policies=["reversible"], repeats=1)
    assert [block.saved_bytes["reversible"] for block in found.blocks] == [0, 0, 0, 0, STATE]
    assert found.elsewhere_bytes["reversible"] == STATE + value_marks(net)


def test_a_kept_input_shows_in_its_block() -> None:
    net = small_tree()
    keep_input(net[2])
    found = inspect(net, small_input(), policies=["reversible"], repeats=1)
    assert [block.saved_bytes["reversible"] for block in found.blocks] == [0, 0, STATE, 0, STATE]


def test_memcnn_keeps_less_than_autograd_does() -> None:
    net = Sequential(*(OrthogonalMixing(4, init="random") for _ in range(4)))
    found = inspect(net, torch.randn(64, 4, 8, 8), policies=["memcnn", "stored"], repeats=1)
    state = 64 * 4 * 8 * 8 * 4
    assert [block.saved_bytes["memcnn"] for block in found.blocks[1:]] == [0, 0, state]
    assert found.total_bytes("stored") > 3 * state


def test_errors_and_policies_are_reported_and_restored() -> None:
    net = Sequential(Misses(), small_tree(), Misses()).double()
    set_backprop(net, "checkpoint")
    found = inspect(net, small_input(), policies=["stored"], repeats=1)
    assert net.backprop_policy is POLICIES["checkpoint"]
    assert found.blocks[-1].own_error == pytest.approx(0.01) and found.blocks[0].rebuilt_error > 0.011
    text = as_text(found)
    assert "1.0e-02" in text.splitlines()[3] and "checkpoint" not in text
    found.blocks[1].own_error = math.nan
    assert as_text(found).split()[-3] == "nan"


def test_conditions_inverses_and_networks_without_an_invertible_part() -> None:
    net = Inverse(Sequential(AffineCoupling(4, dense, condition_channels=2), AdditiveCoupling(4, dense))).double()
    found = inspect(net, torch.randn(3, 4).double(), torch.randn(3, 2).double(), repeats=1)
    assert [block.name for block in found.blocks] == ["module.1⁻¹", "module.0⁻¹"]
    assert all(block.saved_bytes["stored"] > 0 for block in found.blocks)
    with pytest.raises(ValueError, match="expected a network with an invertible part, got Linear"):
        inspect(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="expected backprop to be one of"):
        inspect(net, torch.zeros(1, 4).double(), torch.zeros(1, 2).double(), policies=["other"], repeats=1)


def test_statistics_stay() -> None:
    net = small_tree("batch")
    before = {name: value.clone() for name, value in net.named_buffers()}
    inspect(net, small_input(), repeats=1)
    for name, value in net.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("look", [lambda net, x: inspect(net, x, repeats=1), reconstruction_errors])
def test_layers_still_await_their_first_batch(look: Callable[[Sequential, Tensor], object]) -> None:
    net = Sequential(ActNorm(4), AdditiveCoupling(4, dense), Inverse(ActNorm(4)))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    look(net, 3 * torch.randn(64, 4) + 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    y = net[0](5 * torch.randn(64, 4) - 2)
    torch.testing.assert_close(y.mean(0), torch.zeros(4))
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(4))
    assert net[0].initialized and not net[2].module.initialized


def test_freias_layers_await_theirs() -> None:
    modules = pytest.importorskip("FrEIA.modules")
    net = Sequential(FreiaModule(modules.ActNorm([(4,)])))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    reconstruction_errors(net, 3 * torch.randn(64, 4) + 1)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_text_and_picture(found: Inspection, tmp_path: Path) -> None:
    lines = as_text(found).splitlines()
    assert len(lines) == 2 + 1 + 5 + 1 + 1 + 1
    assert lines[0].split()[:2] == ["reversible", "stored"]
    assert lines[1].split()[:4] == ["kind", "input", "parameters", "KiB"]
    assert lines[3].split()[:2] == ["AdditiveCoupling", "2×4×6×6"] and lines[3].endswith("  1.0")
    assert f"{found.total_bytes('stored') / 1024:.1f}" in lines[-1]
    figure = plot_inspection(found, tmp_path / "inspection.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [b.name for b in found.blocks]
    assert len(figure.axes[0].patches) == len(found.blocks) * len(POLICIES)
    assert imread(tmp_path / "inspection.png").std() > 0


TINY = ["model=iunet", "size=4", "repeats=1", "network.blowup=2", "network.num_levels=2", "network.num_couplings=1"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["inspect_net.py", *TINY, "batch=2", f"out={tmp_path / 'found'}"])
    inspect_net.main()
    printed = capsys.readouterr().out
    assert "body.body.coarser.inner.down" in printed and "2×1×4×4×4" in printed
    assert (tmp_path / "found" / "inspection.txt").read_text() == printed
    assert imread(tmp_path / "found" / "inspection.png").size > 0
    monkeypatch.setattr("sys.argv", ["inspect_net.py", "model=unet", "size=8"])
    with pytest.raises(SystemExit):
        inspect_net.main()
    assert "invertible part, got UNet" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["inspect_net.py"])
    inspect_net.main()
    assert "python inspect_net.py" in capsys.readouterr().out


def test_the_images_of_an_experiment_are_the_input_of_a_network_that_takes_images() -> None:
    config = compose_config(["experiment=irevnet_lab"])
    assert inspect_net._shape(config.model, config.image, None) == [1, 28, 28]
    assert inspect_net._shape(config.model, config.image, 8) == [1, 8, 8]
    model = compose_config(["model=iunet"]).model
    assert inspect_net._shape(model, {"channels": 3, "size": 28}, None) == [1, 32, 32, 32]


@pytest.mark.slow
def test_the_shape_of_the_input() -> None:
    assert "3×1×8×4×4" in inspect_net.run([*TINY, "shape=1,8,4,4", "batch=3"])
    assert inspect_net._shape({"_target_": "x", "channels": [4, 8], "spatial_dims": 2}, {}, 16) == [4, 16, 16]
    assert inspect_net._shape({"in_channels": 1, "body": {"spatial_dims": 3, "channels": [4]}}, {}, 8) == [1, 8, 8, 8]
    with pytest.raises(ConfigError, match="or shape=<channels"):
        inspect_net._shape({"_target_": "x"}, {}, 16)
    with pytest.raises(ConfigError, match="expected size to be a positive integer, got '0'"):
        inspect_net.run(["model=iunet", "size=0"])
