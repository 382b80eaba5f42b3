"""Classes that a saved configuration may name: building them runs code, and the file may come from a stranger."""

import functools
import inspect
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.utils import setup_globals
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from src.config.composition import CONFIG_DIR
from src.utils.errors import ConfigError
from src.utils.nested import dotted

# Module prefixes, separated by commas, that every command line trusts, such as a laboratory's own package.
TRUST_VARIABLE = "INVERTIBLE_IMAGING_TRUST"
# Trusted besides the classes that configs/ name: classes that are defined in these packages and are of one of these
# kinds. They compute. Functions and other classes there may write files, load pickles or import any module.
PACKAGES = (
    *("src.invertible", "src.models", "src.tasks", "src.datamodules", "torch.nn", "torch.optim"),
    *(f"pytorch_lightning.{part}" for part in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
    *(f"torchmetrics.{part}" for part in ("aggregation", "classification", "image.psnr", "image.ssim", "regression")),
    *(f"monai.losses.{part}" for part in ("dice", "focal_loss", "tversky")),
    *(f"monai.transforms.{part}" for part in ("compose", "croppad", "intensity", "spatial")),
)
KINDS = {
    *("torch.nn.modules.module.Module", "torch.optim.optimizer.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    *("pytorch_lightning.core.datamodule.LightningDataModule", "pytorch_lightning.callbacks.callback.Callback"),
    *("pytorch_lightning.loggers.logger.Logger", "pytorch_lightning.profilers.profiler.Profiler"),
    *("pytorch_lightning.strategies.strategy.Strategy", "pytorch_lightning.plugins.precision.precision.Precision"),
    *("lightning_fabric.plugins.io.checkpoint_io.CheckpointIO", "monai.transforms.transform.Transform"),
}
# Interpolations that always resolve to the same value. ${now:%S} could name one class when it is checked and another
# one when it is built.
CONSTANT = re.compile(r"\$\{(?:oc\.select:[^${}\\]*|[\w.\[\]-]+)\}")


def check_trusted(config: DictConfig, trusted: Sequence[str] = ()) -> None:
    """Check that building a saved configuration runs trusted code only.

    Trusted are the targets in configs/, the classes of `PACKAGES` that are of `KINDS`, and everything in the modules of
    ``trusted`` and of the environment variable INVERTIBLE_IMAGING_TRUST. The name alone proves nothing
    (``torch.nn.modules.os.system``): the object itself must be defined there.

    The configuration has to be `pinned`; ``trusted`` are module prefixes or whole names.

    Raises:
        ConfigError: naming each key and its target, and how to trust it.
    """
    trusted = [*trusted, *filter(None, os.environ.get(TRUST_VARIABLE, "").split(","))]
    resolved = list(_strings(OmegaConf.to_container(config, resolve=True)))
    # A value that is resolved again later could differ from the one that is checked here.
    unstable = [(p, t) for p, t in _strings(OmegaConf.to_container(config, resolve=False)) if not _is_constant(t)]
    for place, text in unstable + [(place, text) for place, text in resolved if "${" in text]:
        raise ConfigError(f"expected {place} of a saved configuration to be a value or ${{key}}, got {text!r}")
    targets = [(place, text) for place, text in resolved if place.endswith("._target_")]
    wrong = {place: text for place, text in targets if not is_trusted(text, trusted)}
    if wrong:
        raise ConfigError(
            "expected a saved configuration to name only classes of this project and its libraries, "
            f"got {', '.join(f'{place}={text}' for place, text in wrong.items())}; "
            f"add trust=[{','.join(dict.fromkeys(wrong.values()))}] to allow that code"
        )


def pinned(config: DictConfig) -> DictConfig:
    """Return the configuration with the present values of interpolations that may change (time, environment)."""
    setup_globals()  # Hydra's ``${now:…}``, also where Hydra has not composed anything yet
    raw, resolved = (OmegaConf.to_container(config, resolve=resolve) for resolve in (False, True))
    return OmegaConf.create(_pinned(raw, resolved))


def _pinned(raw: Any, resolved: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _pinned(child, resolved[key]) for key, child in raw.items()}
    if isinstance(raw, list):
        return [_pinned(*children) for children in zip(raw, resolved, strict=True)]
    return resolved if isinstance(raw, str) and not _is_constant(raw) else raw


def _is_constant(text: str) -> bool:
    """Return whether all interpolations in a string are constant, nested ones (``${.widths.${.size}}``) included."""
    while (shorter := CONSTANT.sub("x", text)) != text:
        text = shorter
    return "${" not in text


def is_trusted(target: str, trusted: Sequence[str] = ()) -> bool:
    """Return whether a saved configuration may name ``target``; only modules of trusted packages are imported."""
    if target in targets_of_configs() or target in trusted:
        return True
    # A private or special name leads out of a package, as torch.nn.Module.__init__.__globals__ does.
    if any(part.startswith("_") for part in target.split(".")):
        return False
    own = _lies_in(target, trusted)
    if not own and not _lies_in(target, {package.partition(".")[0] for package in PACKAGES}):
        return False
    try:
        found = get_object(target)
    except (ImportError, AttributeError, ValueError, InstantiationException):
        return False
    module = getattr(found, "__module__", None)
    if not isinstance(module, str) or not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    if own and _lies_in(module, trusted):
        return True
    if not inspect.isclass(found) or not _lies_in(module, PACKAGES):
        return False
    return any(f"{base.__module__}.{base.__qualname__}" in KINDS for base in inspect.getmro(found))


def targets_in(node: Any, key: str = "") -> Iterator[str]:
    """Yield the targets in the value ``node`` that the command line gives to ``key``: a user trusts what they type."""
    for place, text in [(key, node), *dotted(node, key, lists=True)]:
        if isinstance(text, str) and f".{place}".endswith("._target_"):
            yield text


def _strings(node: Any) -> Iterator[tuple[str, str]]:
    """Yield every string in nested containers with its dotted key."""
    return ((place, text) for place, text in dotted(node, lists=True) if isinstance(text, str))


def _lies_in(name: str, prefixes: Sequence[str] | set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


@functools.cache
def targets_of_configs() -> frozenset[str]:
    """Return every ``_target_`` in configs/."""
    texts = (path.read_text(encoding="utf-8") for path in CONFIG_DIR.rglob("*.yaml"))
    return frozenset(target for text in texts for target in re.findall(r"_target_:\s*([\w.]+)", text))
