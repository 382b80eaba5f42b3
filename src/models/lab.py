"""The two small networks of the i-RevNet lab: a convolutional classifier and its invertible counterpart."""

from torch import Tensor, nn

from ..invertible import AdditiveCoupling, Checkerboard, Sequential
from ..invertible.arguments import same_padding
from .invertible_classifier import InjectivePadding, InvertibleClassifier


class LabNet(nn.Module):
    """ψ (space-to-depth), ``num_layers`` times convolution and ReLU, a linear layer.

    Args:
        in_channels, num_classes: of images (B, in_channels, size, size) and logits (B, num_classes).
        size: side of the square images.
        block_size: side of the blocks that ψ turns into channels.
        num_layers, kernel_size: of the convolutions, which keep the number of channels.

    Raises:
        ValueError: for a size that the blocks do not divide, or an even kernel size.

    Example:
        >>> LabNet(num_layers=2)(torch.randn(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        num_classes: int = 10,
        block_size: int = 4,
        num_layers: int = 4,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        channels, num_features = _after_psi(in_channels, size, block_size)
        self.psi = Checkerboard(block_size, spatial_dims=2)
        self.layers = nn.Sequential(*(_convolution(channels, channels, kernel_size) for _ in range(num_layers)))
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layers(self.psi(x)).flatten(1))


class LabIRevNet(InvertibleClassifier):
    """ψ, then ``num_layers`` times ``[x, x̃] ↦ [F(x) + x̃, x]`` with F a convolution and ReLU, a linear layer.

    Instead of exchanging the two halves of the channels, every other layer changes the first half, which is the same
    up to the order of the channels. With colour images, the halves separate colours here, and places within a block
    in the lab's ψ. The arguments are those of `LabNet`.

    Args:
        in_channels, size, num_classes, block_size, num_layers, kernel_size: see `LabNet`.

    Raises:
        ValueError: as `LabNet`, and where ψ leaves an odd number of channels, which cannot be halved.

    Example:
        >>> net, x = LabIRevNet(num_layers=2), torch.randn(2, 1, 28, 28)
        >>> net(x).shape, net.inverse(net.encode(x)).shape
        (torch.Size([2, 10]), torch.Size([2, 1, 28, 28]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        num_classes: int = 10,
        block_size: int = 4,
        num_layers: int = 4,
        kernel_size: int = 7,
    ) -> None:
        channels, num_features = _after_psi(in_channels, size, block_size)
        if channels % 2:
            raise ValueError(f"expected an even number of channels after psi, got {channels}")

        def residual(dims_in: int, dims_out: int) -> nn.Module:
            return _convolution(dims_in, dims_out, kernel_size)

        couplings = [AdditiveCoupling(channels, residual, flip=i % 2 == 1) for i in range(num_layers)]
        features = Sequential(Checkerboard(block_size, spatial_dims=2), *couplings)
        head = nn.Sequential(nn.Flatten(), nn.Linear(num_features, num_classes))
        super().__init__(InjectivePadding(in_channels), features, head)


def _after_psi(in_channels: int, size: int, block_size: int) -> tuple[int, int]:
    """Channels after ψ, and the size of all of them together."""
    if size % block_size:
        raise ValueError(f"expected a size divisible by block_size {block_size}, got {size}")
    return in_channels * block_size**2, in_channels * size**2


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=same_padding(kernel_size))
    return nn.Sequential(conv, nn.ReLU())
