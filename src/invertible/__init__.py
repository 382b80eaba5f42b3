"""Invertible layers and memory-efficient backpropagation through them. Knows no Lightning, Hydra or W&B."""

from . import rules  # noqa: F401  registers the layers' own backward rules
from .engine.kept import keep_input
from .engine.policies import POLICIES, invertible_roots, set_backprop
from .engine.walk import backward_rule
from .graph import Graph, GraphNet
from .inspection.reconstruction import reconstruction_errors
from .interop import ForeignModule, FreiaModule
from .layers.activations import InvertibleLeakyReLU, SneakyReLU
from .layers.actnorm import ActNorm
from .layers.affine import AffineCoupling, GlowCoupling
from .layers.all_in_one import AllInOneBlock, GlobalAffine
from .layers.coupling import AdditiveCoupling, Coupling, TwoSidedCoupling
from .layers.fourier import FourierConvolution
from .layers.fourier_norm import fourier_norm_bound
from .layers.linear import InvertibleConv1x1, Permutation
from .layers.lipschitz import LipSwish, SpectralNormalised, bound_lipschitz, lipschitz_constant
from .layers.logdet import ExactLogDet, LogDetEstimator, RussianRouletteLogDet, TruncatedLogDet
from .layers.mixing import OrthogonalMixing
from .layers.orthogonal_matrices import OrthogonalMatrices
from .layers.pooling import Checkerboard, IAvgPool, INearestPool
from .layers.resampling import Downsampling
from .layers.reshaping import Concat, Reshape, Split
from .layers.residual import Convergence, FixedPointWarning, ResidualBlock
from .module import Composite, Inverse, InvertibleModule, OnChannels, Sequential, VolumePreserving
from .shapes import sequential_for

__all__ = [
    "POLICIES",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AllInOneBlock",
    "Checkerboard",
    "Composite",
    "Concat",
    "Convergence",
    "Coupling",
    "Downsampling",
    "ExactLogDet",
    "FixedPointWarning",
    "ForeignModule",
    "FourierConvolution",
    "FreiaModule",
    "GlobalAffine",
    "GlowCoupling",
    "Graph",
    "GraphNet",
    "IAvgPool",
    "INearestPool",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleLeakyReLU",
    "InvertibleModule",
    "LipSwish",
    "LogDetEstimator",
    "OnChannels",
    "OrthogonalMatrices",
    "OrthogonalMixing",
    "Permutation",
    "Reshape",
    "ResidualBlock",
    "RussianRouletteLogDet",
    "Sequential",
    "SneakyReLU",
    "SpectralNormalised",
    "Split",
    "TruncatedLogDet",
    "TwoSidedCoupling",
    "VolumePreserving",
    "backward_rule",
    "bound_lipschitz",
    "fourier_norm_bound",
    "invertible_roots",
    "keep_input",
    "lipschitz_constant",
    "reconstruction_errors",
    "sequential_for",
    "set_backprop",
]
