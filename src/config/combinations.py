"""Values that are valid alone but impossible together; they are refused before anything heavy is imported."""

import itertools
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from src.utils.errors import ConfigError, did_you_mean

ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
# Sections with the number of levels: the iUNet's channels have it, and other networks have it themselves.
LEVELS = ("model.body.channels", "model")
# What works with parameters that FSDP shares out; tests/invertible/engine/test_fsdp.py.
SHARDED = ("reversible", "stored", "checkpoint")
# Callbacks of Lightning that copy the parameters or load them anew, which fails with shares of them.
UNSHARDED_CALLBACKS = ("ema", "swa", "lr_finder")
# Precisions whose weights have 8 or 11 bits.
HALF_PRECISION = ("bf16-true", "16-true")
TIME_BUDGET, CONSTANT = "src.callbacks.time_budget.TimeBudget", "src.tasks.schedules.constant"


def check_combinations(config: DictConfig) -> None:
    """Check trainer, data and network against each other and against this machine.

    Raises:
        ConfigError: naming the key to change and what it was expected to be.
    """
    trainer = config.trainer
    for key, least in (("max_epochs", 0), ("max_steps", -1)):
        value = trainer.get(key)
        if isinstance(value, int) and value < least:
            raise ConfigError(f"expected trainer.{key} to be at least {least}, got {value}")
    limit = trainer.get("limit_train_batches")
    if limit is not None and config.fit and not limit:
        raise ConfigError(f"expected trainer.limit_train_batches above 0, or fit=false for no training, got {limit}")
    if trainer.get("overfit_batches"):
        raise ConfigError("expected trainer.limit_train_batches for training on part of the data, got overfit_batches")
    _check_machine(trainer)
    _check_likelihood(config)
    _check_compilation(config)
    _check_processes(config)
    _check_sharding(config)
    _check_axes(config.datamodule)
    _check_levels(config)
    _check_validation(config)
    _check_time_budget(config)


def _check_machine(trainer: DictConfig) -> None:
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    if accelerator not in ACCELERATORS:
        raise ConfigError(
            f"expected trainer.accelerator to be one of {', '.join(ACCELERATORS)}, got {accelerator!r}"
            f"{did_you_mean(str(accelerator), ACCELERATORS)}"
        )
    wanted = _number(devices)
    if wanted is not None and wanted < 1 and wanted != -1:
        raise ConfigError(f"expected trainer.devices to be at least 1, -1 or auto, got {devices}")
    if accelerator in ("gpu", "cuda", "mps"):
        present = _gpus(accelerator)
        highest = max(devices) + 1 if isinstance(devices, ListConfig) else wanted or 1
        if highest > present:
            raise ConfigError(
                f"expected devices that this machine has, got trainer.accelerator={accelerator} "
                f"trainer.devices={devices} on a machine with {present} such devices; trainer=cpu runs anywhere"
            )
    elif trainer.get("precision") in ("16-mixed", 16, "16") and (accelerator == "cpu" or _gpus("gpu") == 0):
        raise ConfigError(f"expected trainer.precision=bf16-mixed or 32-true on a CPU, got {trainer.precision}")


def _check_compilation(config: DictConfig) -> None:
    accelerator = config.trainer.get("accelerator", "auto")
    if config.get("compile") == "reduce-overhead" and (accelerator == "cpu" or _gpus("cuda") == 0):
        raise ConfigError("expected compile=true or false without a CUDA device, got reduce-overhead: CUDA graphs")


def _check_likelihood(config: DictConfig) -> None:
    precision = config.trainer.get("precision")
    if precision in HALF_PRECISION and str(config.task.get("_target_")).endswith(".Density"):
        raise ConfigError(
            f"expected trainer.precision=32-true or bf16-mixed for density estimation, got {precision}: a likelihood "
            "is a sum of thousands of terms, which needs more than 8 or 11 bits"
        )


def _gpus(accelerator: str) -> int:
    import torch

    if accelerator != "cuda" and torch.backends.mps.is_available():
        return 1
    return 0 if accelerator == "mps" else torch.cuda.device_count()


def _number(devices: Any) -> int | None:
    """Return how many devices are asked for; None for auto."""
    if isinstance(devices, ListConfig):
        return len(devices)
    return int(devices) if re.fullmatch(r"-?\d+", str(devices)) else None


def _check_processes(config: DictConfig) -> None:
    processes = (_number(config.trainer.get("devices", 1)) or 1) * config.trainer.get("num_nodes", 1)
    for split in ("num_train", "num_val", "num_test"):
        samples = config.datamodule.get(split)
        # Without validation images (0) there is nothing to share.
        if isinstance(samples, int) and 0 < samples < processes:
            raise ConfigError(
                f"expected datamodule.{split} to be at least {processes}, one sample per process, got {samples}"
            )


def _check_sharding(config: DictConfig) -> None:
    trainer = config.trainer
    strategy = trainer.get("strategy", "auto")
    strategy = str(strategy.get("name") if isinstance(strategy, DictConfig) else strategy)
    if not strategy.startswith("fsdp"):
        return
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        raise ConfigError(f"expected trainer.accelerator=gpu with trainer.strategy={strategy}")
    if config.backprop not in SHARDED:
        raise ConfigError(
            f"expected backprop to be one of {', '.join(SHARDED)} with trainer.strategy={strategy}, got "
            f"{config.backprop!r}: FSDP replaces the parameters by views, which memcnn does not find"
        )
    if trainer.get("gradient_clip_val") and trainer.get("gradient_clip_algorithm") in (None, "norm"):
        raise ConfigError(
            f"expected trainer.gradient_clip_val=null or +trainer.gradient_clip_algorithm=value with trainer.strategy="
            f"{strategy}, got trainer.gradient_clip_val={trainer.gradient_clip_val}: Lightning clips no norm of "
            "gradients that are shared out"
        )
    for name in UNSHARDED_CALLBACKS:
        if OmegaConf.select(config, f"callbacks.{name}") is not None:
            raise ConfigError(
                f"expected no callbacks.{name} with trainer.strategy={strategy}, which leaves it a share of the "
                "parameters; trainer=ddp gives it all of them"
            )


def _check_validation(config: DictConfig) -> None:
    """Refuse what goes by the validation where there is none."""
    sizes = {key: OmegaConf.select(config, key) for key in ("trainer.limit_val_batches", "datamodule.num_val")}
    empty = [f"{key}={size}" for key, size in sizes.items() if size is not None and size == 0]
    for place in ("task.scheduler.monitor", "callbacks.early_stopping.monitor"):
        monitor = str(OmegaConf.select(config, place))
        if empty and monitor.startswith("val/"):
            raise ConfigError(f"expected a validation set for {place}={monitor}, got {empty[0]}")


def _check_time_budget(config: DictConfig) -> None:
    callbacks = (config.get("callbacks") or {}).values()
    budgets = [node for node in callbacks if node and node.get("_target_") == TIME_BUDGET]
    schedule = OmegaConf.select(config, "task.scheduler._target_")
    if budgets and schedule not in (None, CONSTANT):
        raise ConfigError(
            f"expected task/scheduler=none with callbacks=time_budget, a schedule itself, got task.scheduler={schedule}"
        )


def _check_axes(datamodule: DictConfig) -> None:
    dims, size = datamodule.get("spatial_dims"), datamodule.get("size")
    if isinstance(dims, int) and dims not in (2, 3):
        raise ConfigError(f"expected datamodule.spatial_dims=2 or 3, got {dims}")
    if isinstance(dims, int) and isinstance(size, ListConfig) and len(size) != dims:
        raise ConfigError(
            f"expected datamodule.size as one number or {dims}, as datamodule.spatial_dims says, got {list(size)}"
        )


def _check_levels(config: DictConfig) -> None:
    strides = OmegaConf.select(config, "model.body.strides")
    places = ("datamodule.size", "datamodule.scan.size", "image.size")
    size = next(filter(None, (OmegaConf.select(config, place) for place in places)), None)
    for place, side in itertools.product(LEVELS, size if isinstance(size, ListConfig) else [size]):
        node = OmegaConf.select(config, place)
        # The user's own list has a number for each level.
        is_list = isinstance(node, ListConfig)
        levels = len(node) if is_list else node.get("num_levels") if isinstance(node, DictConfig) else None
        if not (isinstance(levels, int) and isinstance(side, int) and side > 0 and strides in (None, 2)):
            continue
        most = side.bit_length()  # a side of 32 to 63 voxels can be halved five times: six levels
        if levels > most:
            got = f"{place}={node}" if is_list else f"{place}.num_levels={levels}"
            raise ConfigError(
                f"expected at most {most} levels for a side of {side}, which each level halves, got {got}"
            )
