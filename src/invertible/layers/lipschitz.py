"""Networks with a bounded Lipschitz constant: spectrally normalised layers and 1-Lipschitz activations."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TypeGuard

import torch
from torch import Tensor, nn

from .activations import SneakyReLU
from .fourier_norm import LinearLayer
from .spectral_norm import SpectralNormalised

# Slopes in [−1, 1] whatever their options.
_ONE_LIPSCHITZ = (nn.Identity, nn.Tanh, nn.Sigmoid, nn.ReLU, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.CELU, SneakyReLU)


class LipSwish(nn.Module):
    """``x · sigmoid(βx) / 1.1``: smooth and 1-Lipschitz for every slope β > 0, which is learned (Chen et al., 2019).

    β = softplus(θ), and θ starts at 0.5.

    It takes tensors (B, …) of any shape.

    Example:
        >>> bool((LipSwish()(torch.linspace(-9, 9, 99)).diff() / (18 / 98)).abs().max() <= 1)
        True
    """

    lipschitz_constant = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x * nn.functional.softplus(self.theta)) / 1.1


def bound_lipschitz(net: nn.Module, coefficient: float) -> nn.Module:
    """The network with each linear layer and convolution spectrally normalised to ``coefficient``.

    It may be a layer, an activation with slopes in [−1, 1], any module that states a ``lipschitz_constant``, or a
    `torch.nn.Sequential` of such: then the product of the parts' constants bounds that of the whole, see
    `lipschitz_constant`. In-place activations are made out-of-place.

    Args:
        net: the network, which is changed.
        coefficient: the bound c of each layer.

    Raises:
        ValueError: for a part whose Lipschitz constant is not known.

    Example:
        >>> net = bound_lipschitz(torch.nn.Sequential(torch.nn.Linear(4, 4), LipSwish(), torch.nn.Linear(4, 4)), 0.9)
        >>> round(lipschitz_constant(net), 2)
        0.81
    """
    if _is_chain(net):
        return nn.Sequential(
            OrderedDict((name, bound_lipschitz(part, coefficient)) for name, part in net._modules.items())
        )
    if isinstance(net, LinearLayer):
        return SpectralNormalised(net, coefficient)
    lipschitz_constant(net)
    if getattr(net, "inplace", False):
        net.inplace = False  # type: ignore[assignment]
    return net


def _is_chain(net: nn.Module) -> TypeGuard[nn.Sequential]:
    # A subclass with a forward of its own may add a skip connection, for which no product of constants holds.
    return isinstance(net, nn.Sequential) and type(net).forward is nn.Sequential.forward


def lipschitz_constant(net: nn.Module) -> float:
    """An upper bound of the Lipschitz constant: the product over the parts of a `torch.nn.Sequential`.

    Args:
        net: normalised by `bound_lipschitz`.

    Raises:
        ValueError: for a part whose Lipschitz constant is not known.

    Example:
        >>> lipschitz_constant(torch.nn.Sequential(torch.nn.ReLU(), LipSwish()))
        1.0
    """
    if _is_chain(net):
        return math.prod(lipschitz_constant(part) for part in net)
    if hasattr(net, "lipschitz_constant"):
        return float(net.lipschitz_constant)  # type: ignore[arg-type]
    if isinstance(net, nn.ELU):
        return max(1.0, abs(net.alpha))
    if isinstance(net, nn.LeakyReLU):
        return max(1.0, abs(net.negative_slope))
    if isinstance(net, _ONE_LIPSCHITZ):
        return 1.0
    raise ValueError(
        "expected linear layers, convolutions, activations with a known Lipschitz constant and nn.Sequential of them, "
        f"got {type(net).__name__}; your own modules can set the attribute lipschitz_constant"
    )
