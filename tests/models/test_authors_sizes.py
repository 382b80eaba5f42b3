"""At scale=paper, networks have the parameters of their authors' code, up to layers that ours replaces."""

from __future__ import annotations

import hydra
import pytest
from torch import nn

from src.config.composition import compose_config


def size(*overrides: str) -> int:
    config = compose_config([*overrides, "scale=paper", "run_dir=x"])
    net: nn.Module = hydra.utils.instantiate(config.model)
    return sum(parameter.numel() for parameter in net.parameters())


def glow() -> int:
    """openai/glow, model.py: n_levels=3, depth=32, width=512, 1×1 convolutions, affine couplings, learntop."""
    total = 0
    for channels in (12, 24, 48):
        hidden = 9 * channels // 2 * 512 + 512**2 + 2 * 2 * 512  # two convolutions, each with an actnorm
        last = (9 * 512 + 2) * channels  # conv2d_zeros: bias and logs
        total += 32 * (2 * channels + channels**2 + hidden + last)
    splits = sum((9 * half + 2) * 2 * half for half in (6, 12))
    top = (9 * 2 * 48 + 2) * 2 * 48  # a convolution of zeros, of which only bias and logs count
    return total + splits + top


# Counted by building the authors' classes; the comments say what differs.
AUTHORS = {
    # chrischute/real-nvp, RealNVP(num_scales=2, in_channels=3, mid_channels=64, num_blocks=8): weight normalisation,
    # batch normalisation and both signs of the input of each network.
    "realnvp": (19_631_640, 0.002),
    # No actnorm inside couplings, no learned prior on the coarsest level.
    "glow": (glow(), 0.005),
    # jhjacobsen/invertible-resnet, scripts/dens_est_cifar.sh, without its unused classifier: a prior per latent number.
    "iresnet": (25_029_130 - 586, 0.0003),
    "iconvnet": (1_394_400, 0.0),
    # Biases of convolutions before a normalisation.
    "iconvnet_multiscale": (3_244_992, 0.0005),
}


@pytest.mark.parametrize("flow", AUTHORS)
def test_flows_have_the_sizes_of_their_authors_code(flow: str) -> None:
    expected, tolerance = AUTHORS[flow]
    assert size(f"experiment=flows/{flow}") == pytest.approx(expected, rel=tolerance, abs=0)


@pytest.mark.parametrize(("experiment", "expected"), [("irevnet_cifar10", 6_274_826), ("iresnet_cifar10", 4_873_178)])
def test_classifiers_have_the_parameters_of_their_authors_code(experiment: str, expected: int) -> None:
    # iRevNet(nBlocks=[18, 18, 18], nStrides=[1, 2, 2], nChannels=[16, 64, 256], init_ds=0, mult=4), and
    # scripts/classify_cifar.sh of i-ResNet without its prior of 2 × 16,384 numbers.
    assert size(f"experiment={experiment}") == expected
