"""Find, read and check checkpoints."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from src.config.checks import plain
from src.runs.folder import RunFolder
from src.runs.formats import check_format
from src.utils.nested import flat
from src.utils.reading import FileError, reading
from src.utils.seal import check_archive


def find_checkpoint(path: str | Path, name: str = "last") -> Path:
    """Return the checkpoint that ``path`` means: the file itself, or ``checkpoints/<name>.ckpt`` of a run folder.

    A run without a validation has no best checkpoint; its last one, which it tests itself, stands for it.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    expected = RunFolder(path).checkpoint(name)
    candidate = expected if path.is_dir() else path
    if name == "best" and not candidate.exists():
        candidate = RunFolder(path).checkpoint("last")
    if not candidate.is_file():
        raise ValueError(f"expected a checkpoint or a run folder with {expected.relative_to(path)}, got {str(path)!r}")
    return candidate


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load an undamaged checkpoint onto the CPU; only tensors and plain containers are accepted.

    Raises:
        FileError: if the file is damaged, or was written by another program or a later version of this project.
    """
    with reading(path, "a readable checkpoint"):
        check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    found = checkpoint if isinstance(checkpoint, dict) else {}
    if not all(isinstance(found.get(key), dict) for key in ("state_dict", "config")):
        raise FileError(f"expected a checkpoint with 'state_dict' and 'config', got {str(path)!r} without them")
    check_format(found, path)
    return found


def validated(path: Path) -> dict[str, float]:
    """Return the validation metrics of a checkpoint's network; none of a checkpoint of format 0."""
    metrics = read_checkpoint(path).get("metrics", {})
    return {name: value for name, value in metrics.items() if name.startswith("val/")}


def check_architecture(checkpoint: dict[str, Any], task: nn.Module, config: DictConfig) -> None:
    """Check that the checkpoint's weights fit ``task``, which was built from ``config``.

    Raises:
        ValueError: naming both architectures, the options of the network and the first parameters that differ.
    """
    found, expected = _shapes(checkpoint["state_dict"]), _shapes(task.state_dict())
    if found == expected:
        return
    reshaped = [n for n in expected if n in found and expected[n] != found[n]]
    parts = [
        _listed("missing from the checkpoint", [n for n in expected if n not in found]),
        _listed("unknown to the network", [n for n in found if n not in expected]),
        _listed("with another shape", [f"{n}: expected {expected[n]}, got {found[n]}" for n in reshaped]),
    ]
    options = "".join(f", with {key}={before} in place of {now}" for key, before, now in _changes(checkpoint, config))
    raise ValueError(
        f"expected a checkpoint of {config['model']['_target_']}, got one of "
        f"{checkpoint['config']['model']['_target_']}{options}, whose weights do not fit; "
        + "; ".join(part for part in parts if part)
    )


def _changes(checkpoint: dict[str, Any], config: DictConfig) -> list[tuple[str, Any, Any]]:
    """Return the options of the network that differ: key, the checkpoint's value and the configuration's."""
    before, now = (_network_options(one) for one in (checkpoint["config"], plain(config, resolve=False)))
    return [(key, before[key], now[key]) for key in before if key in now and before[key] != now[key]]


def _network_options(config: dict[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {name: config[name] for name in ("network", "model") if name in config}
    return {key: value for key, value in flat(sections).items() if key != "model._target_"}


def restore_data(checkpoint: dict[str, Any], datamodule: Any) -> None:
    """Give a datamodule the state that one of its class has in the checkpoint, if any.

    Lightning does so only after ``setup``, when the state cannot say any more which images are read, and how.
    """
    state = checkpoint.get(type(datamodule).__qualname__)
    if state is not None:
        datamodule.load_state_dict(state)


def _shapes(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without the extra state of modules, which is no tensor."""
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor)}


def _listed(what: str, items: list[str], limit: int = 3) -> str:
    """Return ``"<n> <what> (<first items>, ...)"``, or nothing for no items."""
    more = ", ..." if len(items) > limit else ""
    return f"{len(items)} {what} ({', '.join(items[:limit])}{more})" if items else ""
