"""FSDP shares the parameters of a network out over the processes, and gathers them for forward and backward passes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel


@contextmanager
def whole_parameters(trainer: pl.Trainer) -> Iterator[None]:
    """Give each process all parameters inside the block, which all processes enter; changes are lost.

    Only FSDP needs it: outside of a forward and backward pass a process has its own share of them.
    """
    model = trainer.strategy.model
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            yield
    else:
        yield


class Sharded(FSDPStrategy):
    """Lightning's FSDP, after which the network is whole again.

    Lightning leaves it in shares, and a test after the training shares them out once more.
    """

    def on_train_end(self) -> None:
        self._make_whole()

    def on_test_end(self) -> None:
        self._make_whole()

    def on_predict_end(self) -> None:
        self._make_whole()

    def _make_whole(self) -> None:
        task, model = self.lightning_module, self.model
        assert task is not None and isinstance(model, FullyShardedDataParallel)
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            values = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
        for name, value in values.items():
            parameter = task.get_parameter(name)
            parameter.grad, parameter.data = None, value
        self.model = task
