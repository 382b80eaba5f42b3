"""What each block of a network costs: ``python inspect_net.py model=iunet size=32 [out=<folder>] [key=value ...]``.

Prints a table with a row per block: parameters, saved bytes under every memory policy, times, reconstruction errors.

    size=32      voxels per side of the random input
    shape=…      its whole shape without the batch instead: shape=1,64,64
    batch=1      samples in the input
    repeats=3    of each timing
    out=…        a folder for the table as inspection.txt and a picture, inspection.png

All other arguments are those of train.py: ``model=…``, ``scale=medium``, ``network.num_couplings=2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.utils.command_line import run_command_line
from src.utils.errors import ConfigError

OPTIONS = {"size": "32", "shape": "", "batch": "1", "repeats": "3", "out": ""}


def run(arguments: list[str]) -> str:
    """Measure the network that the arguments describe, and return the table.

    Raises:
        ValueError: for arguments that do not fit, or a network without an invertible part.
    """
    from hydra.utils import instantiate

    from src.config.checks import check_config
    from src.config.composition import compose_config
    from src.config.targets import check_targets

    options, overrides = _parse(arguments)
    # A run folder of its own, since none is chosen here and nothing is written to it.
    config = compose_config([*overrides, "run_dir=."])
    check_config(config)
    check_targets(config)

    import torch

    from src.invertible.inspection.costs import inspect
    from src.invertible.inspection.report import as_text, plot_inspection
    from src.utils.files import write_text

    torch.manual_seed(config.seed)
    net = instantiate(config.model)
    shape = _numbers("shape", options["shape"]) if options["shape"] else _shape(config.model, options["size"])
    (batch,), (repeats,) = _numbers("batch", options["batch"]), _numbers("repeats", options["repeats"])
    found = inspect(net, torch.randn(batch, *shape), repeats=repeats)
    text = as_text(found)
    if options["out"]:
        folder = Path(options["out"])
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "inspection.txt", text + "\n")
        plot_inspection(found, folder / "inspection.png")
    return text


def _parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    options, overrides = dict(OPTIONS), []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in options:
            options[key] = value
        else:
            overrides.append(argument)
    return options, overrides


def _numbers(name: str, value: str) -> list[int]:
    parts = value.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"expected {name} to be positive integers, got {value!r}")
    return [int(part) for part in parts]


def _shape(model: Mapping[str, Any], size: str) -> list[int]:
    """Shape of an input of the configured model, from what its configuration says of channels and dimensions."""
    (side,) = _numbers("size", size)
    spatial_dims, channels = _find(model, "spatial_dims"), _find(model, "in_channels")
    if channels is None and _find(model, "channels") is not None:
        channels = _find(model, "channels")[0]
    if spatial_dims is None or channels is None:
        raise ConfigError("expected a model with in_channels and spatial_dims, or shape=<channels,…> beside it")
    return [channels] + [side] * spatial_dims


def _find(node: Any, key: str) -> Any:
    """The value of a key, in the node itself or the nearest one inside."""
    if not isinstance(node, Mapping):
        return None
    if key in node:
        return node[key]
    return next((found for child in node.values() if (found := _find(child, key)) is not None), None)


def main() -> None:
    """Run the command line."""
    run_command_line(__doc__, lambda arguments: print(run(arguments)))


if __name__ == "__main__":
    main()
