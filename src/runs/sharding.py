"""Whether FSDP can share out the parameters of a network."""

from pytorch_lightning.strategies import FSDPStrategy, Strategy
from torch import nn

from src.invertible import ActNorm


def check_sharding(strategy: Strategy, net: nn.Module) -> None:
    """Check that FSDP, if it is the strategy, can share out the parameters of a network.

    Raises:
        ValueError: for one with `ActNorm`, whose first batch sets parameters.
    """
    if isinstance(strategy, FSDPStrategy) and any(isinstance(module, ActNorm) for module in net.modules()):
        raise ValueError(
            f"expected trainer=ddp for {type(net).__name__}, got FSDP: the first batch sets parameters of its ActNorm "
            "layers, of which each process has a share only"
        )
