"""Invertible layers and memory-efficient backpropagation through them. Knows no Lightning, Hydra or W&B."""

from . import rules  # noqa: F401  registers the layers' own backward rules
from .backprop import POLICIES, invertible_roots, set_backprop
from .coupling import AdditiveCoupling
from .mixing import OrthogonalMixing
from .module import Composite, Inverse, InvertibleModule, OnChannels, Sequential, VolumePreserving
from .orthogonal import OrthogonalMatrices
from .resampling import Downsampling
from .reversible import backward_rule

__all__ = [
    "POLICIES",
    "AdditiveCoupling",
    "Composite",
    "Downsampling",
    "Inverse",
    "InvertibleModule",
    "OnChannels",
    "OrthogonalMatrices",
    "OrthogonalMixing",
    "Sequential",
    "VolumePreserving",
    "backward_rule",
    "invertible_roots",
    "set_backprop",
]
