"""Tensors and modes of a network during its forward pass, restored while backward evaluates it again."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..module import all_modules, trained_parameters
from .attributes import Attribute
from .bit_sums import bit_sums

_ABSENT = object()


class _Table(NamedTuple):
    """The parameters or the constant buffers of one module: the table that torch reads, what stood in it, aliases.

    Or one attribute of a module, in the table of all its attributes, which is then not ``whole``.
    """

    module: nn.Module
    present: dict[str, Any]
    used: dict[str, Tensor | None]
    aliased: dict[str, Tensor | None]
    whole: bool = True

    def content(self) -> dict[str, Any]:
        return dict(self.present) if self.whole else {name: self.present.get(name, _ABSENT) for name in self.used}

    def fill(self, content: dict[str, Any]) -> None:
        if self.whole:
            self.present.clear()
            self.present.update(content)
            return
        for name, value in content.items():
            if value is _ABSENT:
                self.present.pop(name, None)
            else:
                self.present[name] = value


def leaf_alias(tensor: Tensor) -> Tensor:
    """A leaf of the graph in the memory of the tensor, without its hooks."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


class Snapshot:
    """The parameters, constant buffers and modes (training or evaluation) of a module, as they are now.

    Between the forward and the backward pass a caller may exchange tensors (`torch.func.functional_call`,
    ``load_state_dict(assign=True)``, a new `torch.nn.Parameter`) or switch a part to evaluation. Inside `reused` the
    module is as it was. A tensor that was overwritten in place is lost: `refuse_overwritten` and `refuse_changes` name
    it. So is the gradient of an attribute of which autograd was not told: `refuse_lost` names that. Buffers that a
    module may move belong to `replay.LeafStart`.

    Args:
        root: the module, with all inside it.
        alias: makes what stands in for a tensor inside `reused`. It is another tensor, so that the hooks of a parameter
            do not see its gradient part by part, but once and whole, when backward hands it over.
        attributes: of the module and all inside it, from before the forward pass; those that it has set anew do not
            count.

    Raises:
        RuntimeError: from `refuse_overwritten` and `refuse_changes`, with the name of a tensor that was changed in
            place, and from `refuse_lost`.

    Example:
        >>> layer = ActNorm(4)
        >>> snapshot, _ = Snapshot(layer), layer.eval()
        >>> with snapshot.reused():
        ...     layer.training
        True
    """

    def __init__(
        self,
        root: nn.Module,
        alias: Callable[[Tensor], Tensor] = leaf_alias,
        attributes: Iterable[Attribute] = (),
    ) -> None:
        self._root = root
        self._modules = all_modules(root)
        self._modes = [module.training for module in self._modules]
        aliases: dict[Tensor, Tensor] = {}
        self._tables: list[_Table] = []
        for module in self._modules:
            for table in _tables(module):
                for tensor in table.values():
                    if tensor is not None and tensor not in aliases:
                        aliases[tensor] = alias(tensor)
                aliased = {name: None if tensor is None else aliases[tensor] for name, tensor in table.items()}
                self._tables.append(_Table(module, table, dict(table), aliased))
        self.untold: list[Tensor] = []
        self._attributes: list[tuple[nn.Module, Tensor]] = []
        for attribute in attributes:
            self._add(attribute, aliases, alias)
        self.originals = {stand_in: tensor for tensor, stand_in in aliases.items()}
        self.mark()

    def _add(self, attribute: Attribute, aliases: dict[Tensor, Tensor], alias: Callable[[Tensor], Tensor]) -> None:
        module, name, tensor = attribute
        if module.__dict__.get(name) is not tensor:
            return
        if not attribute.is_input:
            # Alone, since its graph may lead to the node that keeps the snapshot of the pass before, and so on.
            stand_in = tensor = leaf_alias(tensor)
            self.untold.append(stand_in)
        elif tensor in aliases:
            stand_in = aliases[tensor]
        else:
            stand_in = aliases[tensor] = alias(tensor)
        self._tables.append(_Table(module, module.__dict__, {name: tensor}, {name: stand_in}, whole=False))
        self._attributes.append((module, stand_in))

    def stand_ins_in(self, modules: Sequence[nn.Module]) -> list[Tensor]:
        """Inside `reused`: what these modules themselves are differentiated with respect to, each once."""
        found = trained_parameters(modules)
        if self._attributes:
            inside = set(modules)
            found += [stand_in for owner, stand_in in self._attributes if owner in inside]
            found = list({id(tensor): tensor for tensor in found}.values())
        return found

    def mark(self) -> None:
        """Record the present values as those that must not change, even if a first batch has moved them in memory."""
        for stand_in, tensor in self.originals.items():
            if stand_in.data_ptr() != tensor.data_ptr():
                stand_in.data = tensor.data
        self._versions = [tensor._version for tensor in self.originals.values()]
        self._bit_sums = bit_sums(self.originals)

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Inside, the module is as it was, its tensors replaced by their aliases; afterwards it is as before."""
        modes, contents = [module.training for module in self._modules], [table.content() for table in self._tables]
        try:
            _set_modes(self._modules, self._modes)
            for table in self._tables:
                table.fill(table.aliased)
            yield
        finally:
            _set_modes(self._modules, modes)
            for table, content in zip(self._tables, contents, strict=True):
                table.fill(content)

    def refuse_overwritten(self) -> None:
        """Refuse changes that can be detected without reading values.

        Raises:
            RuntimeError: if a part was exchanged, or a tensor's version counter says that it was overwritten.
        """
        if all_modules(self._root) != self._modules:
            raise RuntimeError(
                f"expected the modules of this {type(self._root).__name__} to stay the same between forward and "
                "backward, got one that was replaced, added or removed"
            )
        versions = [tensor._version for tensor in self.originals.values()]
        self._refuse([now != before for now, before in zip(versions, self._versions, strict=True)])

    def refuse_changes(self) -> None:
        """Refuse changed values. It waits for the GPU, so call it once the work there is queued.

        Torch's fused optimizers and writes through ``.data`` leave the version counters as they are.

        Raises:
            RuntimeError: if the values of a tensor are not those of the forward pass.
        """
        now, before = bit_sums(self.originals), self._bit_sums
        if now is not None and before is not None and not torch.equal(now, before):
            self._refuse((now != before).tolist())

    def refuse_lost(self, differentiated: Container[Tensor]) -> None:
        """Refuse gradients of attributes of which autograd was not told, given all stand-ins that have a gradient.

        Raises:
            RuntimeError: with the name of the attribute.
        """
        lost = next((stand_in for stand_in in self.untold if stand_in in differentiated), None)
        if lost is not None:
            raise RuntimeError(
                f"expected {self._name(lost)!r} to be a parameter, got a tensor with a graph, to which this backprop "
                "policy cannot hand a gradient: use set_backprop(net, 'stored'), or make it a parameter and set its "
                "value by torch.func.functional_call"
            )

    def _refuse(self, changed: list[bool]) -> None:
        if any(changed):
            tensor = next(t for t, is_changed in zip(self.originals.values(), changed, strict=True) if is_changed)
            raise RuntimeError(
                f"expected {self._name(tensor)!r} to keep its values between forward and backward, but it was "
                "changed in place; states can only be rebuilt with the values of the forward pass"
            )

    def _name(self, tensor: Tensor) -> str:
        prefixes = {module: f"{name}." if name else "" for name, module in self._root.named_modules()}
        return next(
            prefixes[table.module] + name
            for table in self._tables
            for name, used in table.used.items()
            if used is tensor
        )


def _tables(module: nn.Module) -> Iterator[dict[str, Any]]:
    if module._parameters:
        yield module._parameters
    if module._buffers and getattr(module, "buffers_are_constants", False):
        yield module._buffers


def _set_modes(modules: Iterable[nn.Module], modes: Iterable[bool]) -> None:
    for module, mode in zip(modules, modes, strict=True):
        if module.training != mode:
            module.training = mode
