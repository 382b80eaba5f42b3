"""Invertible layers and memory-efficient backpropagation through them. Knows no Lightning, Hydra or W&B."""

from . import rules  # noqa: F401  registers the layers' own backward rules
from .activations import InvertibleLeakyReLU, SneakyReLU
from .actnorm import ActNorm
from .affine import AffineCoupling, GlowCoupling
from .all_in_one import AllInOneBlock, GlobalAffine
from .backprop import POLICIES, invertible_roots, set_backprop
from .backward_walk import backward_rule
from .coupling import AdditiveCoupling, Coupling, TwoSidedCoupling
from .fourier import FourierConvolution
from .fourier_norm import fourier_norm_bound
from .graph import Graph, GraphNet
from .interop import ForeignModule, FreiaModule
from .kept import keep_input
from .linear import InvertibleConv1x1, Permutation
from .lipschitz import LipSwish, SpectralNormalised, bound_lipschitz, lipschitz_constant
from .logdet import ExactLogDet, LogDetEstimator, RussianRouletteLogDet, TruncatedLogDet
from .mixing import OrthogonalMixing
from .module import Composite, Inverse, InvertibleModule, OnChannels, Sequential, VolumePreserving
from .orthogonal_matrices import OrthogonalMatrices
from .pooling import Checkerboard, IAvgPool, INearestPool
from .reconstruction import reconstruction_errors
from .resampling import Downsampling
from .reshaping import Concat, Reshape, Split
from .residual import Convergence, FixedPointWarning, ResidualBlock
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
