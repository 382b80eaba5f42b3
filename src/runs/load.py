"""A trained network in Python, with what a run did to its data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from src.config.checks import check_config
from src.config.saved import trusted_config
from src.config.targets import check_targets
from src.datamodules.conversion import Converted, converted
from src.runs.checkpoints import check_architecture, find_checkpoint, read_checkpoint, restore_data
from src.runs.folder import run_folder_of
from src.runs.formats import explaining_age
from src.tasks.base import Task
from src.utils.processes import checked_device
from src.utils.random_stream import own_stream

Values = TypeVar("Values", NDArray[Any], Tensor)


class LoadedRun:
    """The network of a run, in evaluation mode, and what the run knows besides.

    A call takes an image with the values of its file, (C, *spatial) or, with one channel, (*spatial), and returns what
    the task predicts for it, again in the file's values: a restored image, a label map, the probabilities of the
    classes, or the latents of a flow. Images that are larger than those of the training go through the network window
    by window. Arrays give arrays and no gradients, tensors give tensors with gradients.

    Args:
        config: of the run.
        checkpoint: where the weights are from.
        task: with these weights, on the device where the network is to compute.
        content: of the checkpoint.

    Attributes:
        net: the network, (B, C, *spatial) as `preprocess` returns them; an invertible one has ``net.inverse``, a part
            of another one has it (``net.body.inverse``), and a flow has ``net.encode``, ``net.decode``, ``net.sample``
            and ``net.log_likelihood``.
    """

    def __init__(self, config: DictConfig, checkpoint: Path, task: Task, content: dict[str, Any]) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.task = task
        self._content = content

    @property
    def net(self) -> nn.Module:
        return self.task.net

    @functools.cached_property
    def datamodule(self) -> Any:
        """The run's datamodule, which knows how images become inputs; nothing is read or downloaded.

        Raises:
            ValueError: if it does not fit the network.
        """
        datamodule = instantiate(self.config.datamodule)
        restore_data(self._content, datamodule)
        self.task.check_data(datamodule)
        return datamodule

    def preprocess(self, image: NDArray[Any] | Tensor) -> Tensor:
        """Return an image as the network takes it, (1, C, *spatial) on its device; a tensor keeps its gradients.

        Raises:
            ValueError: for an image of another kind than the run's.
        """
        return self._converted(image).values[None]

    def __call__(self, image: Values) -> Values:
        if isinstance(image, Tensor):
            return self._predicted(image)
        with torch.inference_mode():
            output = self._predicted(image)
            # numpy has no bfloat16, which autocast may give
            return (output.float() if output.dtype == torch.bfloat16 else output).cpu().numpy()

    def _predicted(self, image: NDArray[Any] | Tensor) -> Tensor:
        one = self._converted(image)
        return one.undo(self.task.infer(one.values[None])[0])

    def _converted(self, image: NDArray[Any] | Tensor) -> Converted:
        like = next(self.net.parameters(), torch.empty(0))
        values = image if isinstance(image, Tensor) else _as_tensor(image)
        channels, *spatial = self.datamodule.sample_shape
        if values.ndim == len(spatial) and channels == 1:
            values = values[None]
        if values.ndim != 1 + len(spatial) or len(values) != channels or values.numel() == 0:
            raise ValueError(
                f"expected an image of {channels} channels and {len(spatial)} spatial axes, (C, *spatial), got shape "
                f"{tuple(np.shape(image))}"
            )
        if not values.isfinite().all():
            raise ValueError(f"expected finite values, got {int((~values.isfinite()).sum())} infinite or NaN values")
        one = converted(self.datamodule, values.to(like.device, torch.float32))
        return one._replace(values=one.values.to(like.dtype))

    def __repr__(self) -> str:
        return f"LoadedRun({type(self.task).__name__} with {type(self.net).__name__} from {str(self.checkpoint)!r})"


def _as_tensor(image: NDArray[Any]) -> Tensor:
    array = np.asarray(image)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected an array of real numbers, got {array.dtype}; predict.py reads files")
    return torch.from_numpy(array.astype(np.float32))


def load_run(
    path: str | Path, checkpoint: str = "best", *, trust: Sequence[str] = (), device: str | torch.device = "cpu"
) -> LoadedRun:
    """Return the network of a run with its best weights.

    Example::

        run = load_run("outputs/ct_postproc/<run>")
        restored = run(volume)  # a numpy array (D, H, W) gives one

    Args:
        path: the folder of the run, or one of its checkpoints.
        checkpoint: which one of a folder: ``best`` or ``last``.
        trust: prefixes of the modules outside this project whose classes the run may name; building them runs their
            code.
        device: where the network computes.

    Raises:
        ConfigError: if the run names classes that are not trusted.
        ValueError: if there is no such checkpoint or device, or the checkpoint is damaged.
    """
    checked_device(device=str(device))
    file = find_checkpoint(path, checkpoint)
    content = read_checkpoint(file)
    saved = {**content["config"], "logger": None, "run_dir": str(run_folder_of(file))}
    config = trusted_config(saved, [], trust)
    with explaining_age(content, file):
        # Whether the trainer's devices exist does not matter here.
        check_config(config)
        check_targets(config)
    with own_stream(0, torch.device("cpu")):  # the weights that are drawn here are replaced
        task = instantiate(config.task, _partial_=True)(net=instantiate(config.model))
    load_weights(task, content, config)
    return LoadedRun(config, file, task.to(device).eval(), content)


def load_weights(task: Task, content: dict[str, Any], config: DictConfig) -> None:
    """Give a task the weights of a checkpoint, in the precision of the run.

    Raises:
        ValueError: if they are those of another network.
    """
    check_architecture(content, task, config)
    if config.trainer.get("precision") == "64-true":
        task.double()
    task.load_state_dict(content["state_dict"])
