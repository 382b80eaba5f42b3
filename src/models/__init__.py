"""Networks: images to images, classifiers, normalizing flows. One paper, one file; nothing beyond torch is needed."""

from .blocks import ConvBlock
from .convnet import ConvNet
from .density import DensityModel, LogLikelihood
from .dequantisation import UniformDequantisation, VariationalDequantisation
from .glow import Glow
from .iconvnet import IConvNetClassifier, IConvNetFlow
from .invertible_classifier import InjectivePadding, InvertibleClassifier
from .iresnet import IResNetClassifier, IResNetFlow
from .irevnet import IRevNet
from .iunet import IUNet
from .iunet_flow import IUNetFlow
from .iunets_weights import iunet_from_iunets
from .lab import LabIRevNet, LabNet
from .lifted import Lifted
from .partially_reversible_unet import PartiallyReversibleUNet
from .realnvp import RealNVP
from .unet import UNet

__all__ = [
    "ConvBlock",
    "ConvNet",
    "DensityModel",
    "Glow",
    "IConvNetClassifier",
    "IConvNetFlow",
    "IResNetClassifier",
    "IResNetFlow",
    "IRevNet",
    "IUNet",
    "IUNetFlow",
    "InjectivePadding",
    "InvertibleClassifier",
    "LabIRevNet",
    "LabNet",
    "Lifted",
    "LogLikelihood",
    "PartiallyReversibleUNet",
    "RealNVP",
    "UNet",
    "UniformDequantisation",
    "VariationalDequantisation",
    "iunet_from_iunets",
]
