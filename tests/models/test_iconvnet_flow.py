"""The flows of convolutions and invertible activations, and the sizes of those of the poster's authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from src.invertible import POLICIES, InvertibleModule, OnChannels, Sequential, set_backprop
from src.models.density import DensityModel
from src.models.iconvnet_flows import IConvNetFlow, IConvNetGlowFlow, IConvNetMultiscaleFlow
from tests.invertible.engine.test_backprop import saved_bytes
from tests.invertible.layers.test_oracles import gradients, jacobian_logdet

FLOWS: dict[str, Callable[[], InvertibleModule]] = {
    "poster": lambda: IConvNetFlow(1, (1, 2)),
    "poster, three stages": lambda: IConvNetFlow(1, (2, 1, 1)),
    "poster, one stage": lambda: IConvNetFlow(1, (3,)),
    "poster, nearest": lambda: IConvNetFlow(1, (1, 1), downsampling="nearest", slope=0.5),
    "poster, checkerboard": lambda: IConvNetFlow(1, (1, 1), downsampling="checkerboard", kernel_size=2),
    "multi-scale": lambda: IConvNetMultiscaleFlow(1, (1, 1)),
    "multi-scale, three levels": lambda: IConvNetMultiscaleFlow(1, (1, 1, 1), slope=0.5),
    "multi-scale, average": lambda: IConvNetMultiscaleFlow(1, (1, 2), downsampling="average", kernel_size=2),
    "glow": lambda: IConvNetGlowFlow(1, 2, 2),
    "glow, even kernel": lambda: IConvNetGlowFlow(1, 2, 2, kernel_size=2),
    "glow, slope": lambda: IConvNetGlowFlow(1, 2, 2, slope=0.5),
    "glow, one level": lambda: IConvNetGlowFlow(1, 1, 3),
}
OF_EACH_KIND = ("poster", "multi-scale", "glow")


def flow(name: str) -> InvertibleModule:
    torch.manual_seed(0)
    net = FLOWS[name]().double().eval()
    for parameter in net.parameters():
        if parameter.ndim == 1:  # biases and normalisations, which start at zero
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def image() -> torch.Tensor:
    return torch.randn(2, 1, 4, 8, dtype=torch.float64)


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_and_logdet_are_exact(name: str) -> None:
    net, x = flow(name), image()
    y, logdet = net.forward_and_logdet(x)
    assert y.shape == x.shape
    torch.testing.assert_close(net.inverse(y), x, rtol=0, atol=1e-10)
    for b in range(2):
        torch.testing.assert_close(logdet[b], jacobian_logdet(net, x, b), rtol=0, atol=1e-8)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "stored"])
@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_gradients_are_exact_under_every_policy(name: str, policy: str) -> None:
    net, x = flow(name), image()
    expected, found = (gradients(net, "forward_and_logdet", p, x) for p in ("stored", policy))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9 * float(value.abs().max().clamp(min=1)))


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_a_shift_of_the_image_is_a_shift_of_the_latent(name: str) -> None:
    net, x = flow(name), image()
    # By a multiple of the coarsest block, the convolutions being circular.
    torch.testing.assert_close(net(x.roll(4, dims=3)), net(x).roll(4, dims=3))


def test_every_latent_of_the_posters_flow_depends_on_every_channel_of_its_block() -> None:
    net, x = flow("poster"), image()
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v)[0, :, :2, :2], x)[..., 0, :, :2, :2]
    assert (jacobian != 0).all()  # nothing is factored out


@pytest.mark.parametrize("construct", [lambda n: IConvNetFlow(1, (n, n)), lambda n: IConvNetGlowFlow(1, 2, n)])
def test_memory_does_not_grow_with_the_layers(construct: Callable[[int], InvertibleModule]) -> None:
    def kept(count: int) -> int:
        net = Sequential(construct(count).eval())
        set_backprop(net, "reversible")
        return saved_bytes(net, torch.randn(2, 1, 16, 16))

    assert kept(2) == kept(8)


def convolutions(channels: Sequence[int], taps: int = 9, bias: bool = True) -> int:
    """The parameters of convolutions that keep these channels, one after the other."""
    return sum(taps * c * c + bias * c for c in channels)


def size(net: InvertibleModule) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_posters_flow_has_the_parameters_of_its_authors_code() -> None:
    # iCNN3d of flow_ssl/icnn/icnn.py, whose forward pass of a flow leaves out its classifier_head.
    assert size(IConvNetFlow(3)) == convolutions([3] * 3 + [12] * 3 + [48] * 3 + [192] * 4) == 1_394_400


def test_the_multi_scale_flow_has_the_parameters_of_its_authors_code() -> None:
    # MultiScaleiCNN(k=64): iConv2d with bias, iBN with weight and bias, iSLReLU; iConv1x1 with bias at each pooling.
    layers = [64] * 3 + [128] * 3 + [256] * 3
    authors = convolutions(layers) + sum(2 * c for c in layers) + convolutions([256, 512], taps=1) + convolutions([256])
    redundant = sum(layers)  # biases of convolutions before a normalisation, which has one
    assert authors == 3_244_992 and size(IConvNetMultiscaleFlow(64)) == authors - redundant


def test_noise_that_a_flow_passes_on_leaves_the_likelihood_as_it_is() -> None:
    torch.manual_seed(0)
    inner = IConvNetFlow(1, (1,)).double()
    images = torch.randint(256, (3, 1, 4, 4)).double()
    plain = DensityModel(inner, (1, 4, 4))
    # The flow of the image alone, and the identity on two channels of noise.
    augmented = DensityModel(OnChannels(inner, 2), (1, 4, 4), augmented_channels=3)
    torch.manual_seed(1)
    expected = plain.log_likelihood(images).total
    torch.manual_seed(1)
    found = augmented.log_likelihood(images)
    torch.testing.assert_close(found.total, expected, rtol=0, atol=1e-9)
    assert augmented.latent_shape == (3, 4, 4) and augmented.encode(images).shape == (3, 3, 4, 4)
    torch.testing.assert_close(augmented.decode(augmented.encode(images)), images + 0.5)
    assert augmented.sample(2).shape == (2, 1, 4, 4)


def test_options_and_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one layer each, got num_layers=\[\]"):
        IConvNetFlow(1, ())
    with pytest.raises(ValueError, match=r"at least one layer each, got num_layers=\[2, 0\]"):
        IConvNetMultiscaleFlow(1, (2, 0))
    with pytest.raises(ValueError, match="num_layers >= 1, got 0"):
        IConvNetGlowFlow(1, 2, 0)
    with pytest.raises(ValueError, match="slope"):
        IConvNetFlow(1, (2,), slope=0.0)
    with pytest.raises(ValueError, match="downsampling"):
        IConvNetFlow(1, (2, 1), downsampling="max")
    with pytest.raises(ValueError, match="augmented_channels >= 1"):
        DensityModel(IConvNetFlow(1), (1, 8, 8), augmented_channels=0)
    for name in ("poster, three stages", "multi-scale, three levels", "glow"):
        with pytest.raises(ValueError, match=r"divisible by 2\^2 = 4"):
            flow(name)(torch.zeros(1, 1, 6, 6, dtype=torch.float64))
