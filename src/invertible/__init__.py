"""Invertible layers and memory-efficient backpropagation through them. Knows no Lightning, Hydra or W&B."""

from .engine.kept import keep_input
from .engine.policies import POLICIES, PolicyName, invertible_roots, set_backprop
from .engine.replay import RngState
from .engine.snapshot import Snapshot
from .engine.walk import backward_rule
from .export import is_exporting
from .graph import Graph, GraphNet
from .inspection.reconstruction import reconstruction_errors
from .interop import ForeignModule, FreiaModule
from .layers.activations import InvertibleLeakyReLU, SneakyReLU
from .layers.actnorm import ActNorm
from .layers.affine import AffineCoupling, GlowCoupling
from .layers.all_in_one import AllInOneBlock, GlobalAffine
from .layers.coupling import AdditiveCoupling, Coupling, SubnetConstructor, TwoSidedCoupling
from .layers.fourier import FourierConvolution, logabsdet, spectrum
from .layers.fourier_norm import fourier_norm_bound
from .layers.linear import InvertibleConv1x1, Permutation
from .layers.lipschitz import LipSwish, SpectralNormalised, bound_lipschitz, lipschitz_constant
from .layers.logdet import ExactLogDet, LogDetEstimator, RussianRouletteLogDet, TruncatedLogDet, logdet_estimator
from .layers.logit import FixedAffine, Logit
from .layers.mixing import OrthogonalMixing
from .layers.on_channels import OnChannels
from .layers.orthogonal import haar_matrix
from .layers.orthogonal_matrices import OrthogonalMatrices
from .layers.pooling import INVERTIBLE_POOLINGS, Checkerboard, IAvgPool, INearestPool, invertible_pooling
from .layers.resampling import Downsampling, per_dimension
from .layers.reshaping import Concat, Reshape, Split
from .layers.residual import Convergence, FixedPointWarning, ResidualBlock
from .layers.space_to_depth import to_blocks
from .module import (
    FORWARD,
    INVERSE,
    Composite,
    Condition,
    Inverse,
    InvertibleModule,
    Sequential,
    State,
    Step,
    VolumePreserving,
)
from .shapes import sequential_for, undisturbed

__all__ = [
    "FORWARD",
    "INVERSE",
    "INVERTIBLE_POOLINGS",
    "POLICIES",
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AllInOneBlock",
    "Checkerboard",
    "Composite",
    "Concat",
    "Condition",
    "Convergence",
    "Coupling",
    "Downsampling",
    "ExactLogDet",
    "FixedAffine",
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
    "Logit",
    "OnChannels",
    "OrthogonalMatrices",
    "OrthogonalMixing",
    "Permutation",
    "PolicyName",
    "Reshape",
    "ResidualBlock",
    "RngState",
    "RussianRouletteLogDet",
    "Sequential",
    "Snapshot",
    "SneakyReLU",
    "SpectralNormalised",
    "Split",
    "State",
    "Step",
    "SubnetConstructor",
    "TruncatedLogDet",
    "TwoSidedCoupling",
    "VolumePreserving",
    "backward_rule",
    "bound_lipschitz",
    "fourier_norm_bound",
    "haar_matrix",
    "invertible_pooling",
    "invertible_roots",
    "is_exporting",
    "keep_input",
    "lipschitz_constant",
    "logabsdet",
    "logdet_estimator",
    "per_dimension",
    "reconstruction_errors",
    "sequential_for",
    "set_backprop",
    "spectrum",
    "to_blocks",
    "undisturbed",
]
