"""The engine's benchmark: every network builds, the peers compute what ours does, the report says what was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import engine, peers
from benchmarks.engine import Case, build, bytes_of_a_step, gradient_error, training_step
from benchmarks.engine_report import as_text, write_report
from benchmarks.measure import device_clock, median_ratio, times_in_turns
from benchmarks.peers import NETWORKS, Definition, NotComparable, awake
from src.invertible import POLICIES
from tests.invertible.engine.test_backprop import value_marks

TINY = Definition(spatial_dims=2, channels=8, levels=2, couplings=2)


def case(definition: Definition = TINY, size: int = 8) -> Case:
    return Case(definition, size)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("block", peers.BLOCKS)
def test_every_network_takes_a_step(spatial_dims: int, block: str) -> None:
    tiny = case(dataclasses.replace(TINY, spatial_dims=spatial_dims, block=block))
    nets, missing = build(list(NETWORKS), tiny)
    assert set(nets) | set(missing) == set(NETWORKS)
    assert {"unet", *POLICIES} <= set(nets)
    for name, net in nets.items():
        training_step(net, tiny.input(), bf16=False)
        assert all(p.grad is not None for p in net.parameters()), name


@pytest.mark.parametrize("couplings", [2, 4])
def test_revtorchs_network_is_ours(couplings: int) -> None:
    pytest.importorskip("revtorch")
    definition = dataclasses.replace(TINY, couplings=couplings, levels=3, spatial_dims=3)
    ours = awake(NETWORKS["stored"](definition)).double()
    # Built around the same couplings and orthogonal maps.
    shared = peers._RevTorchLevel(ours.bijection)  # type: ignore[arg-type, union-attr]
    x = torch.randn(1, 8, 8, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(shared(x.clone().requires_grad_()), ours(x), rtol=1e-10, atol=1e-10)
    gradients = []
    for net in (ours, shared):
        training_step(net, x.clone(), bf16=False)
        gradients.append({id(p): p.grad for p in net.parameters()})
        net.zero_grad(set_to_none=True)
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-8, atol=1e-8)


def test_networks_that_cannot_be_compared_are_named() -> None:
    nets, missing = build(["revtorch", "iunets"], case(dataclasses.replace(TINY, couplings=1)))
    assert not nets
    assert missing["revtorch"] == "needs an even number of couplings"
    assert "iunets" in missing["iunets"]


@pytest.mark.parametrize("name", ["iunets", "revtorch", "monai"])
def test_a_library_that_is_absent_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotComparable, match=name):
        NETWORKS[name](TINY)


def test_no_parameter_is_zero_once_awake() -> None:
    net = awake(NETWORKS["stored"](TINY))
    assert all(p.any() for p in net.parameters())


def test_bytes_kept_and_peak() -> None:
    tiny = case()
    x = tiny.input()
    state = x.numel() * x.element_size()
    nets = {policy: build([policy], tiny)[0][policy] for policy in POLICIES}
    found = {policy: bytes_of_a_step(net, x, bf16=False) for policy, net in nets.items()}
    kept = {policy: pair[0] for policy, pair in found.items()}
    # The output, the loss's scalar, and the marks of the parameters' values.
    assert kept["reversible"] == pytest.approx(state + value_marks(nets["reversible"]), rel=0.01)
    assert kept["reversible"] < kept["memcnn"] < kept["checkpoint"] < kept["stored"]
    assert all(peak >= kept for kept, peak in found.values())


def test_gradient_error_is_that_of_single_precision_and_sees_a_wrong_gradient() -> None:
    tiny = case()
    net = build(["reversible"], tiny)[0]["reversible"]
    assert 0 < gradient_error(net, tiny.input(), bf16=False) < 1e-4
    assert 1e-4 < gradient_error(net, tiny.input(), bf16=True) < 0.3
    # A hook stays with this network: the oracle's gradients are not doubled.
    next(net.parameters()).register_hook(lambda grad: 2 * grad)
    assert gradient_error(net, tiny.input(), bf16=False) > 0.1


def test_candidates_take_turns() -> None:
    order: list[str] = []
    ticks = iter(range(100))
    steps = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = times_in_turns(steps, 2, clock=lambda: float(next(ticks)))
    # Two calls to warm up and one that counts.
    assert "".join(order) == "bbbaaaaaabbb"
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert median_ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2.0
    assert device_clock("cpu")() <= device_clock("cpu")()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["engine", *arguments])
    threads = torch.get_num_threads()
    try:
        engine.main()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("values", [["4", "8"], []])
def test_the_command_writes_text_json_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], values: list[str]
) -> None:
    stem = tmp_path / "folder" / "engine"
    vary = ["--vary", "size", *values] if values else []
    networks = ["--networks", "stored", "reversible", "iunets"]
    sizes = ["--spatial-dims", "1", "--channels", "4", "--levels", "2", "--couplings", "1", "--size", "8"]
    run_main(monkeypatch, *sizes, *networks, *vary, "--rounds", "1", "--output", str(stem))
    result = json.loads(stem.with_suffix(".json").read_text())
    assert [point["value"] for point in result["points"]] == ([4, 8] if values else [8])
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    text = stem.with_suffix(".txt").read_text()
    assert text in capsys.readouterr().out
    assert "1D, 2 levels, 4 channels, 1 couplings" in text
    assert "| reversible |" in text
    assert "iunets: not measured" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "unet"], "to include stored and reversible"),
        (["--vary", "colour", "3"], "expected --vary"),
        (["--vary", "size"], "expected --vary"),
        (["--vary", "size", "x"], "expected --vary"),
    ],
)
def test_bad_arguments_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        run_main(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_a_report_without_a_repository(tmp_path: Path) -> None:
    row = dict.fromkeys(("seconds", "over_stored", "reversible_over_this", "gradient_error"), 1.0)
    point = {"value": 8, "input_bytes": 4, "rows": {"a": {**row, "kept_bytes": 8, "peak_bytes": 2**20}}, "missing": {}}
    result = {
        "case": dataclasses.asdict(case()),
        "axis": "size",
        "points": [point],
        "rounds": 1,
        "git_commit": None,
        "hardware": {"cpu": "cpu", "threads": 1, "gpus": []},
        "versions": {"torch": "2"},
    }
    assert "| a | 1.000 | 1.00 | 1.00 | 2.00 | 1.0 | 1e+00 |" in as_text(result)
    write_report(result, tmp_path / "a")
    assert (tmp_path / "a.png").is_file()
