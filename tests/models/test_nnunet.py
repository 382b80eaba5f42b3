"""The iUNet behind nnU-Net's constructor, without nnU-Net; tests/hosts/test_nnunet.py trains it there."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.live_bytes import LiveBytes
from src.invertible import POLICIES, set_backprop
from src.models.nnunet import NnunetIUNet
from src.models.nnunet_plans import iunet_plans, main

ANISOTROPIC = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}


def network(strides: int | Sequence[Sequence[int]] = ANISOTROPIC, dims: int = 3, **options: Any) -> NnunetIUNet:
    """A network from two channels to three classes, away from the identity as which it starts."""
    torch.manual_seed(0)
    net = NnunetIUNet(2, 3, 3, (8, 16, 32), strides, CONVOLUTIONS[dims], **options).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


def batch(*spatial: int) -> Tensor:
    return torch.randn(2, 2, *spatial, dtype=torch.float64)


def gradients(net: NnunetIUNet, x: Tensor) -> list[Tensor | None]:
    """Gradients of a loss on all outputs, each with its own weight, by input and parameters."""
    net, x = copy.deepcopy(net), x.clone().requires_grad_()
    outputs = net(x)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(weight * y.square().sum() for weight, y in enumerate(outputs, start=1)).backward()  # type: ignore[union-attr]
    return [x.grad, *(p.grad for p in net.parameters())]


@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "stored"])
def test_gradients_under_deep_supervision_are_those_of_plain_autograd(policy: str, deep_supervision: bool) -> None:
    net, x = network(deep_supervision=deep_supervision), batch(4, 8, 8)
    set_backprop(net, "stored")
    expected = gradients(net, x)
    set_backprop(net, policy)
    for found, wanted in zip(gradients(net, x), expected, strict=True):
        assert (found is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


@pytest.mark.parametrize(("dims", "spatial"), [(2, (8, 12)), (3, (4, 8, 4))])
def test_logits_of_every_level_are_those_of_the_parts(dims: int, spatial: tuple[int, ...]) -> None:
    net, x = network(2, dims), batch(*spatial)
    fine = net(x)
    net.decoder.deep_supervision = True
    logits = net(x)
    assert [tuple(y.shape[2:]) for y in logits] == [spatial, tuple(n // 2 for n in spatial)]
    torch.testing.assert_close(logits[0], fine, rtol=0, atol=1e-12)
    *codes, last = net.body.encode(net.lift(x))
    coarse, level = net.body.body.coarser.inner, net.body.body.coarser.inner.level  # type: ignore[union-attr]
    y = level.decoder(torch.cat((codes[1], level.coarser.inner.up(level.coarser.inner.level.decoder(last))), dim=1))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(logits[1], net.decoder.heads[1](y), rtol=0, atol=1e-12)
    y = net.body.body.decoder(torch.cat((codes[0], coarse.up(y)), dim=1))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(logits[0], net.decoder.heads[0](y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("policy", ["reversible", "stored"])
def test_deep_supervision_keeps_two_states_per_level_at_any_depth(policy: str) -> None:
    def kept(num_couplings: int) -> float:
        net, x = network(num_couplings=num_couplings, deep_supervision=True, backprop=policy), batch(8, 16, 16)
        state = 8 * x[:, :1].numel() * x.element_size()
        with LiveBytes() as live:
            logits = net(x)
            return (live.now - sum(y.nbytes for y in logits)) / state

    states = 2 * (1 + 1 / 2 + 1 / 4)  # of eight channels; the anisotropic stride keeps half of them, not a quarter
    if policy == "stored":
        assert kept(4) > 1.7 * kept(2) > 3.4 * states
    else:
        assert kept(2) == pytest.approx(kept(4), abs=0.1)
        assert kept(4) < 1.1 * states


def test_sizes_are_padded_without_deep_supervision_only() -> None:
    net = network()
    assert net(batch(5, 7, 9)).shape == (2, 3, 5, 7, 9)
    net.decoder.deep_supervision = True
    with pytest.raises(ValueError, match=r"expected a spatial size divisible by \(2, 4, 4\), got \(5, 7, 9\)"):
        net(batch(5, 7, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_stages": 1}, "expected n_stages of at least 2, got 1"),
        ({"features_per_stage": (4, 8)}, "expected features_per_stage to be one number or one for each of 3 stages"),
        ({"strides": ((2, 2), (2, 2), (2, 2))}, r"expected a stride of 1 on the first stage, got \[2, 2\]"),
        ({"conv_op": nn.Linear}, "expected conv_op to be one of Conv2d, Conv3d, got 'Linear'"),
        ({"backprop": "none"}, "expected backprop to be one of reversible"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    options = {"n_stages": 3, "features_per_stage": 8, "strides": 2, "conv_op": nn.Conv2d}
    with pytest.raises(ValueError, match=message):
        NnunetIUNet(1, 2, **{**options, **change})


def plans() -> dict[str, Any]:
    """What matters of nnU-Net's plans for a 3D configuration and its cascade."""
    arguments = {
        "n_stages": 3,
        "features_per_stage": [8, 16, 32],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "dropout_op": None,
    }
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "dropout_op"],
    }
    fullres = {"data_identifier": "nnUNetPlans_3d_fullres", "patch_size": [4, 8, 8], "architecture": architecture}
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": fullres, "3d_cascade_fullres": cascade}}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("", "Expecting value"), ('{"a": 1}', "expected plans with plans_name and .*, got a")],
)
def test_what_is_no_plans_is_refused_in_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "plans.json"
    if content is not None:
        source.write_text(content)
    with pytest.raises(SystemExit):
        main([str(source)])
    *_, last = capsys.readouterr().err.splitlines()
    assert re.search(
        f"expected the plans that nnUNetv2_plan_and_preprocess has written, got {source}: .*{message}", last
    )


def test_plans_name_our_network_and_keep_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "nnUNetPlans.json"
    source.write_text(json.dumps(plans()))
    main([str(source), "--num-couplings", "3", "--backprop", "checkpoint", "--norm", "layer"])
    target = tmp_path / "nnUNetPlans_iunet.json"
    assert capsys.readouterr().out == f"wrote {target}\n"
    written, expected = json.loads(target.read_text()), plans()
    architecture = written["configurations"]["3d_fullres"].pop("architecture")
    del expected["configurations"]["3d_fullres"]["architecture"]
    assert written == {**expected, "plans_name": "nnUNetPlans_iunet"}
    assert json.loads(source.read_text()) == plans()
    assert architecture["network_class_name"] == "src.models.nnunet.NnunetIUNet"
    arguments = architecture["arch_kwargs"]
    assert architecture["_kw_requires_import"] == ["conv_op"]
    net = NnunetIUNet(1, 2, **{**arguments, "conv_op": nn.Conv3d})
    assert net.body.strides == [(1, 2, 2), (2, 2, 2)]
    assert net.body.num_couplings == [3, 3, 3]


def test_plans_without_an_architecture_are_refused() -> None:
    old = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": {"UNet_class_name": "PlainConvUNet"}}}
    with pytest.raises(ValueError, match=r"expected plans whose configurations have an architecture, as nnU-Net 2\.4"):
        iunet_plans(old)


@pytest.mark.slow
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_torch_compile_which_nnunet_uses_on_gpus_changes_nothing(deep_supervision: bool) -> None:
    net, x = network(2, 2, deep_supervision=deep_supervision), batch(8, 8)
    compiled = copy.deepcopy(net)
    compiled.compile(backend="eager")
    for found, wanted in zip(gradients(compiled, x), gradients(net, x), strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
