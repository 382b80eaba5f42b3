"""Networks: images to images, classifiers, normalizing flows. One paper, one file; nothing beyond torch is needed."""

from .blocks import ConvBlock as ConvBlock
from .convnet import ConvNet as ConvNet
from .density import DensityModel as DensityModel
from .density import LogLikelihood as LogLikelihood
from .dequantisation import UniformDequantisation as UniformDequantisation
from .dequantisation import VariationalDequantisation as VariationalDequantisation
from .glow import Glow as Glow
from .iconvnet import IConvNetClassifier as IConvNetClassifier
from .iconvnet import IConvNetFlow as IConvNetFlow
from .invertible_classifier import InjectivePadding as InjectivePadding
from .invertible_classifier import InvertibleClassifier as InvertibleClassifier
from .iresnet import IResNetClassifier as IResNetClassifier
from .iresnet import IResNetFlow as IResNetFlow
from .irevnet import IRevNet as IRevNet
from .iunet import IUNet as IUNet
from .iunet_flow import IUNetFlow as IUNetFlow
from .iunets_weights import iunet_from_iunets as iunet_from_iunets
from .lab import LabIRevNet as LabIRevNet
from .lab import LabNet as LabNet
from .lifted import Lifted as Lifted
from .nnunet import NnunetIUNet as NnunetIUNet
from .partially_reversible_unet import PartiallyReversibleUNet as PartiallyReversibleUNet
from .realnvp import RealNVP as RealNVP
from .unet import UNet as UNet
