"""The cost of each block of a network: ``python inspect_net.py model=iunet size=32 [out=<folder>] [key=value ...]``.

Prints a table with a row per block: parameters, saved bytes under every memory policy, times, reconstruction errors.

    size=32      voxels per side of the random input; by default those of the experiment's images, else 32
    shape=…      the shape of the input without the batch, in place of size: shape=1,64,64
    batch=1      samples in the input
    repeats=3    of each timing
    out=…        a folder for the table as inspection.txt and a picture, inspection.png

All other arguments are those of train.py: ``model=…``, ``scale=medium``, ``network.num_couplings=2``. A network of
another experiment than ``ct_postproc`` comes with that experiment: ``experiment=iconvnet_table2 model=glow``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.utils.command_line import parse, run_command_line
from src.utils.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Options of inspect_net.py; the text above explains them."""

    size: int | None = None
    shape: list[int] = field(default_factory=list)
    batch: int = 1
    repeats: int = 3
    out: Path | None = None


def run(arguments: list[str]) -> str:
    """Measure the network that the arguments describe, and return the table.

    Raises:
        ValueError: for arguments that do not fit, or a network without an invertible part.
    """
    from hydra.utils import instantiate

    from src.config.checks import checked
    from src.config.composition import compose_config

    options, overrides = parse(Options, arguments)
    config = checked(compose_config(overrides))

    import torch

    from src.invertible.inspection.costs import inspect
    from src.invertible.inspection.report import as_text, plot_inspection
    from src.utils.files import write_text

    torch.manual_seed(config.seed)
    net = instantiate(config.model)
    shape = options.shape or _shape(config.model, config.get("image") or {}, options.size)
    found = inspect(net, torch.randn(options.batch, *shape), repeats=options.repeats)
    text = as_text(found)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "inspection.txt", text + "\n")
        plot_inspection(found, options.out / "inspection.png")
    return text


def _shape(model: Mapping[str, Any], image: Mapping[str, Any], side: int | None) -> list[int]:
    """Return the shape of an input without the batch, from the configuration of the model or else of the images."""
    spatial_dims, channels = _find(model, "spatial_dims"), _find(model, "in_channels")
    if channels is None and _find(model, "channels") is not None:
        channels = _find(model, "channels")[0]
    if spatial_dims is None and {"channels", "size"} <= {*image}:
        return [image["channels"]] + [side or image["size"]] * 2
    if spatial_dims is None or channels is None:
        raise ConfigError("expected a model with in_channels and spatial_dims, or shape=<channels,…> as well")
    return [channels] + [side or 32] * spatial_dims


def _find(node: Any, key: str) -> Any:
    """Return the value of a key in the node itself or the first node inside that has it."""
    if not isinstance(node, Mapping):
        return None
    if key in node:
        return node[key]
    return next((found for child in node.values() if (found := _find(child, key)) is not None), None)


def main() -> None:
    """Run the command line."""
    run_command_line(lambda: __doc__, lambda arguments: print(run(arguments)))


if __name__ == "__main__":
    main()
