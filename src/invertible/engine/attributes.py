"""What a tree is differentiated with respect to: parameters, and tensors that stand as attributes in its modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from ..module import trained_parameters

_OF_EVERY_MODULE = frozenset(nn.Module().__dict__)
# Told by their type alone, since every pass of a network asks.
_NO_TENSORS = {bool, dict, float, int, list, set, str, tuple, type(None)}


class Attribute(NamedTuple):
    """A tensor that requires gradients and stands as a plain attribute in a module."""

    module: nn.Module
    name: str
    tensor: Tensor

    @property
    def is_input(self) -> bool:
        """Whether autograd can be told of the tensor before the forward pass.

        It can if the tensor has no graph, or stands for a parameter: in the module's own table, as FSDP sets it, or in
        that of a replica of `torch.nn.DataParallel`. Another may be left over from an earlier pass, its graph gone.
        """
        tables = (self.module._parameters, self.module.__dict__.get("_former_parameters", {}))
        return self.tensor.is_leaf or any(table.get(self.name) is self.tensor for table in tables)


def tensor_attributes(root: nn.Module, modules: Iterable[nn.Module]) -> list[Attribute]:
    """The tensors that require gradients and stand as plain attributes in a module or in those inside it.

    Raises:
        ValueError: for parameters without a shape as yet, and for buffers that require gradients.
    """
    found = []
    for module in modules:
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(
                f"expected initialised parameters, got {_named(module, root)}: call the network once under "
                "torch.no_grad() before the training"
            )
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.requires_grad:
                raise ValueError(
                    f"expected buffers without gradients, got {name!r} of {_named(module, root)}: make it a "
                    "parameter, detach it, or use set_backprop(net, 'stored')"
                )
        content = module.__dict__
        for name in content.keys() - _OF_EVERY_MODULE:
            value = content[name]
            if type(value) not in _NO_TENSORS and isinstance(value, Tensor) and value.requires_grad:
                found.append(Attribute(module, name, value))
    return found


def _named(module: nn.Module, root: nn.Module) -> str:
    name = next(name for name, part in root.named_modules() if part is module)
    return f"{name!r} ({type(module).__name__})"


def inputs_of(modules: Iterable[nn.Module], attributes: Iterable[Attribute]) -> list[Tensor]:
    """Of what autograd is told: the trained parameters and the attributes that can be inputs, each once.

    Where there are other attributes, a number without influence is among them: backward, which notices whether the loss
    depends on these, then runs even if nothing else is trained.
    """
    tensors = trained_parameters(modules)
    for attribute in attributes:
        tensors.append(attribute.tensor if attribute.is_input else torch.zeros((), requires_grad=True))
    return list({id(tensor): tensor for tensor in tensors}.values())
