"""iUNet, U-Net, their blocks, padding and the linear ends."""

from __future__ import annotations

import functools
import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.blocks import NORMS, ConvBlock, ProjectionConv
from src.models.in_place import LeakyReLU
from src.models.iunet import IUNet
from src.models.iunet_layout import doubled_channels, strides_per_level
from src.models.lifted import Lifted
from src.models.norms import GroupNorm, InstanceNorm3d
from src.models.spatial_padding import IMAGE_PADDINGS, SpatialPadding
from src.models.unet import UNet

SIZES = {1: (16,), 2: (16, 8), 3: (8, 16, 8)}


def perturbed(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("init", ["haar", "pixel_shuffle", "random"])
@pytest.mark.parametrize("method", ["exp", "cayley", "householder"])
def test_iunet_starts_as_the_identity(d: int, init: str, method: str) -> None:
    channels = (4, 2 * 2**d, 3 * 2**d)
    options = {"init": init, "method": method}
    net = IUNet(channels, 2, d, resampling=options, mixing={"init": "random", "method": method}).double()
    x = torch.randn(1, 4, *SIZES[d], dtype=torch.float64)
    assert (net(x) - x).abs().max() < 1e-12


@pytest.mark.parametrize("d", [1, 2, 3])
def test_iunet_decodes_its_codes_and_inverts(d: int) -> None:
    net = perturbed(IUNet((4, 2 * 2**d, 3 * 2**d), (1, 3, 2), d)).double()
    assert isinstance(net, IUNet)
    x = torch.randn(2, 4, *SIZES[d], dtype=torch.float64)
    codes = net.encode(x)
    assert [c.shape[1] for c in codes] == [2, 2 * 2**d - 3, 3 * 2**d]
    assert sum(c.numel() for c in codes) == x.numel()
    y = net(x)
    torch.testing.assert_close(net.decode(codes), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(net.inverse(y), x, rtol=0, atol=1e-10)
    assert (y - x).abs().max() > 0.1
    with pytest.raises(ValueError, match="expected 3 codes, one per level, got 2"):
        net.decode(codes[:2])


def test_channels_that_cannot_be_achieved_are_named_with_the_closest_that_can() -> None:
    with pytest.warns(
        UserWarning, match=r"channels=\[10, 15, 64\].*using the closest achievable channels=\[10, 16, 64\]"
    ):
        net = IUNet((10, 15, 64), 1, 3)
    assert net.channels == [10, 16, 64]
    assert net(torch.zeros(1, 10, 8, 8, 8)).shape == (1, 10, 8, 8, 8)


def test_achievable_channels_give_no_warning_and_keep_one_waiting_channel() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert IUNet((16, 32, 64, 128), 1, 3).channels == [16, 32, 64, 128]
    with pytest.warns(UserWarning, match=r"channels=\[2, 4\]"):
        assert IUNet((2, 1000), 1, 2).channels == [2, 4]


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        (2, [(2, 2)] * 3),
        ((2, 1), [(2, 1)] * 3),
        ([2, (1, 2), 3], [(2, 2), (1, 2), (3, 3)]),
        ([4, 2, 2], [(4, 4), (2, 2), (2, 2)]),
    ],
)
def test_forms_of_strides(strides, expected: list) -> None:  # type: ignore[no-untyped-def]
    assert strides_per_level(strides, 3, 2) == expected


def test_strides_per_level_shape_the_codes() -> None:
    net = IUNet((4, 6, 12), 1, 2, strides=[(2, 1), (2, 3)])
    assert [tuple(c.shape[1:]) for c in net.encode(torch.zeros(1, 4, 8, 6))] == [(1, 8, 6), (4, 4, 6), (12, 2, 2)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_blocks_with_every_norm_start_at_zero_and_train(norm: str, d: int) -> None:
    block = ConvBlock(3, 5, spatial_dims=d, norm=norm, zero_init=True)
    x = torch.randn(2, 3, *SIZES[d])
    y = block(x)
    assert y.shape == (2, 5, *SIZES[d])
    assert y.abs().max() == 0
    (y - 1).pow(2).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


def test_norms_are_what_their_names_say() -> None:
    kinds = {norm: type(ConvBlock(16, 16, spatial_dims=3, norm=norm)[1]) for norm in NORMS}
    assert kinds == {
        "instance": InstanceNorm3d,
        "layer": GroupNorm,
        "group": GroupNorm,
        "batch": nn.BatchNorm3d,
        "none": LeakyReLU,
    }
    assert ConvBlock(16, 16, spatial_dims=3, norm="layer")[1].num_groups == 1
    assert ConvBlock(16, 16, spatial_dims=3, norm="group")[1].num_groups == 8
    assert ConvBlock(12, 12, spatial_dims=3, norm="group")[1].num_groups == 4


def test_block_depth_kernel_and_final_activation() -> None:
    block = ConvBlock(2, 4, spatial_dims=1, depth=3, kernel_size=5, norm="none", final_activation=True)
    convolutions = [m for m in block if isinstance(m, nn.Conv1d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (2, 4, (5,)),
        (4, 4, (5,)),
        (4, 4, (5,)),
    ]
    assert isinstance(block[-1], nn.LeakyReLU)


@pytest.mark.parametrize("mode", IMAGE_PADDINGS)
@pytest.mark.parametrize("size", [(5, 8, 7), (8, 8, 8), (9, 11, 10)])
def test_padding_and_its_reversal(mode: str, size: tuple[int, ...]) -> None:
    padding = SpatialPadding((4, 4, 4), mode, 2.0)
    x = torch.randn(1, 2, *size)
    padded = padding.pad(x)
    assert all(n % 4 == 0 and 0 <= n - m < 4 for n, m in zip(padded.shape[2:], size, strict=True))
    assert torch.equal(padding.crop(padded, size), x)
    if mode == "constant" and padded.shape != x.shape:
        assert torch.isclose(padded.sum(), x.sum() + 2.0 * (padded.numel() - x.numel()), rtol=1e-4)


@pytest.mark.parametrize(("mode", "size", "largest"), [("reflect", 7, 6), ("circular", 6, 6)])
def test_padding_wider_than_the_image_is_refused(mode: str, size: int, largest: int) -> None:
    padding = SpatialPadding((4, 20), mode)
    message = rf"padding_mode={mode} to add at most \(\d, {largest}\) voxels .* size \(4, {size}\), got \(0, 7\)"
    with pytest.raises(ValueError, match=message):
        padding.pad(torch.zeros(1, 1, 4, size))
    x = torch.randn(1, 1, 4, 8)
    assert torch.equal(padding.crop(padding.pad(x), (4, 8)), x)


@pytest.mark.parametrize("revert", [True, False])
@pytest.mark.parametrize("policy", [None, "reversible"])
def test_iunet_pads_and_reverts_its_padding(revert: bool, policy: str | None) -> None:
    from src.invertible import set_backprop

    net = perturbed(IUNet((4, 8), 2, 2, padding_mode="reflect", revert_padding=revert))
    assert isinstance(net, IUNet)
    if policy:
        set_backprop(net, policy)
    x = torch.randn(1, 4, 7, 9, requires_grad=True)
    y = net(x)
    assert y.shape == (x.shape if revert else (1, 4, 8, 10))
    padded = F.pad(x, (0, 1, 0, 1), mode="reflect")
    expected = net.body(padded)
    torch.testing.assert_close(y, expected[:, :, :7, :9] if revert else expected)
    y.sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match=r"divisible by \(2, 2\), got \(7, 9\): the network is a bijection"):
        net.inverse(torch.zeros(1, 4, 7, 9))
    with pytest.raises(ValueError, match="bijection only on such sizes"):
        net.forward_and_logdet(torch.zeros(1, 4, 7, 9))


def test_iunet_with_its_own_coupling_functions() -> None:
    made = []

    def subnet(dims_in: int, dims_out: int) -> nn.Module:
        made.append((dims_in, dims_out))
        return ProjectionConv(dims_in, dims_out, spatial_dims=2)

    IUNet((5, 8), 2, 2, subnet=subnet)
    assert made == [(3, 2), (3, 2), (2, 3), (2, 3), (4, 4), (4, 4), (4, 4), (4, 4)]


def test_layout_shows_every_level() -> None:
    lines = IUNet((16, 32, 64), (2, 3, 1), 3).layout().splitlines()
    assert lines[0].startswith("16-16-(12+4)-")
    assert "32-32-32-(24+8)" in lines[1]
    assert "64" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_lifted_iunet_starts_as_the_identity(d: int, kernel_size: int) -> None:
    torch.manual_seed(0)
    net = Lifted(2, 2, IUNet((4, 2 * 2**d), 2, d), kernel_size=kernel_size).double()
    x = torch.randn(1, 2, *SIZES[d], dtype=torch.float64)
    assert (net(x) - x).abs().max() < 5e-6  # the matrices are made in float32
    assert Lifted(1, 3, IUNet((4, 2 * 2**d), 2, d))(torch.zeros(1, 1, *SIZES[d])).shape[1] == 3


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("norm", ["layer", "instance"])
def test_unet_shapes_channels_and_gradients(d: int, norm: str) -> None:
    net = UNet(2, 3, base_channels=4, num_levels=3, spatial_dims=d, norm=norm)
    assert net.channels == [4, 8, 16]
    convolutions = [m for m in net.encoders.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    assert [c.out_channels for c in convolutions] == [4, 4, 8, 8, 16, 16]
    x = torch.randn(2, 2, *SIZES[d])
    y = net(x)
    assert y.shape == (2, 3, *SIZES[d])
    y.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_unet_pads_odd_sizes_only_when_told() -> None:
    assert UNet(1, 1, 2, 3, 2, padding_mode="replicate")(torch.zeros(1, 1, 9, 6)).shape == (1, 1, 9, 6)
    with pytest.raises(ValueError, match=r"divisible by \(4, 4\), got \(9, 6\).*set padding_mode"):
        UNet(1, 1, 2, 3, 2)(torch.zeros(1, 1, 9, 6))


def test_unet_with_one_level_sees_five_voxels_and_three_levels_see_far() -> None:
    def reach(num_levels: int) -> int:
        net = UNet(1, 1, 2, num_levels, 1, norm="none").eval()
        x = torch.zeros(1, 1, 64, requires_grad=True)
        net(x + torch.randn_like(x))[0, 0, 32].backward()
        assert x.grad is not None
        return int((x.grad != 0).sum())

    assert reach(1) == 5
    assert reach(3) > 20


BAD = {
    "no channels": (lambda: IUNet((), 1, 3), r"a positive number of channels for each level, got channels=\(\)"),
    "one number of channels": (lambda: IUNet(8, 1, 3), "a positive number of channels for each level, got channels=8"),  # type: ignore[arg-type]
    "body without spatial_dims": (lambda: Lifted(1, 1, nn.Conv2d(4, 4, 1)), "a body with spatial_dims, got Conv2d"),
    "no batch axis": (lambda: IUNet((2,), 1, 2)(torch.zeros(2, 16, 16)), r"shape \(B, 2, H, W\), got \(2, 16, 16\)"),
    "no axis of channels": (
        lambda: UNet(1, 1, 4, 1, 3)(torch.zeros(9, 8, 8, 8)),
        r"\(B, 1, D, H, W\), got \(9, 8, 8, 8\)",
    ),
    "one channel cannot be split": (lambda: IUNet((1, 8), 1, 3), "at least 2 channels to split, got 1 on level 1"),
    "dimension": (lambda: IUNet((4,), 1, 4), "spatial_dims to be 1, 2 or 3, got 4"),
    "couplings": (lambda: IUNet((4, 8), (1, 2, 3), 3), r"one non-negative number or 2 of them, got \[1, 2, 3\]"),
    "mixing": (lambda: IUNet((4, 8), 1, 3, mixing_frequency=-2), "mixing_frequency to be -1, 0 or positive, got -2"),
    "strides": (lambda: IUNet((4, 8), 1, 3, strides=[2, 2]), "list of 1 .one per downsampling., got"),
    "padding": (lambda: IUNet((4, 8), 1, 3, padding_mode="mirror"), r"expected padding_mode to be one of .*'mirror'"),
    "norm": (lambda: ConvBlock(1, 1, spatial_dims=2, norm="spectral"), "expected norm to be one of .*'spectral'"),
    "depth": (lambda: ConvBlock(1, 1, spatial_dims=2, depth=0), "expected depth >= 1, got 0"),
    "kernel": (lambda: ConvBlock(1, 1, spatial_dims=2, kernel_size=4), "expected an odd kernel_size, got 4"),
    "lift": (lambda: Lifted(8, 1, IUNet((4, 8), 1, 3)), "expected a body of at least 8 channels, got 4"),
    "unet levels": (lambda: UNet(1, 1, 4, 0, 3), "expected num_levels >= 1, got 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_named(name: str) -> None:
    construct, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        construct()


@pytest.mark.parametrize(
    "net",
    [IUNet((4, 8), 1, 3), Lifted(4, 4, IUNet((4, 8), 1, 3)), UNet(4, 1, 2, 2, 3)],
    ids=["iunet", "lifted", "unet"],
)
def test_bad_inputs_are_named(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"expected .*4 channels, got 3"):
        net(torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(ValueError, match=r"divisible by \(2, 2, 2\), got \(8, 7, 8\)"):
        net(torch.zeros(1, 4, 8, 7, 8))


def test_saved_tensors_of_a_lifted_iunet_are_input_and_output_of_the_body() -> None:
    from src.invertible import set_backprop

    net = Lifted(1, 1, IUNet((8, 16), 2, 3))
    set_backprop(net, "reversible")
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(1, 1, 8, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(x)
    assert sum(kept.values()) == x.numel() * 4 * (1 + 8)


def test_default_subnet_follows_the_paper() -> None:
    block = IUNet((16, 32), 1, 3).body[0][0].subnet  # type: ignore[index, union-attr]
    assert isinstance(block, ConvBlock)
    assert math.prod(block[0].kernel_size) == 27
    assert block.norm1.num_groups == 1  # type: ignore[union-attr]
    assert functools.reduce(lambda total, p: total + p.abs().sum(), block.norm1.parameters(), torch.tensor(0.0)) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(("base", "levels", "expected"), [(16, 1, [16]), (4, 4, [4, 8, 16, 32])])
def test_doubled_channels(base: int, levels: int, expected: list[int]) -> None:
    assert doubled_channels(base, levels) == expected


@pytest.mark.parametrize(("base", "levels", "name"), [(0, 3, "base_channels"), (4, 0, "num_levels")])
def test_no_channels_or_levels_to_double_are_refused(base: int, levels: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name} >= 1, got 0"):
        doubled_channels(base, levels)
