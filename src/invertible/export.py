"""Who looks at the operations of a pass besides autograd: an exporter, a compiler, or a transform of `torch.func`."""

import torch


def is_exporting() -> bool:
    """Whether the operations of a forward pass are recorded to be run elsewhere.

    The recorded program has no backward pass of ours: backprop policies do not apply to it.

    Example:
        >>> is_exporting()
        False
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def under_torch_func() -> bool:
    """Whether a transform of `torch.func` runs; True if this version of torch does not tell."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or active()


def needs_plain_operations() -> bool:
    """Whether a compiler, an exporter or a transform of `torch.func` looks, which know torch's own operations only."""
    return torch.compiler.is_compiling() or is_exporting() or under_torch_func()
