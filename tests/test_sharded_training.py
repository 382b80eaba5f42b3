"""`trainer=fsdp` on two CPU processes: a training with its test, beside one process on the whole batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

import train
from src.callbacks.pictures.evaluation import EvaluationPictures
from src.config.composition import compose_config
from src.invertible import ActNorm
from src.runs.folder import RunFolder
from src.runs.history import read_rows
from src.runs.sharding import check_sharding
from src.runs.summary import read_summary
from src.utils.files import write_text
from tests.callbacks.test_pictures import trainer
from tests.image_files import write_mnist
from tests.invertible.engine.two_processes import process_group, run_two
from tests.sharded import CpuSharded
from tests.test_ddp import LIGHTNING, TWO, start, weights
from tests.test_image_networks import one_step

SHARDED = [*TWO, "~trainer.strategy", "+trainer.strategy={_target_:tests.sharded.CpuSharded}"]
MEASURED = ("val/invertibility_error", "train/reconstruction_error")


def arguments(data: Path, run_dir: Path, *more: str) -> list[str]:
    # Two steps of two batches; the rate of Adam would make rounding errors of small gradients visible.
    still = ["datamodule.augment=false", "task/optimizer=sgd", "trainer.accumulate_grad_batches=2"]
    watched = ["callbacks=guard", "callbacks.guard.every_n_steps=1", "trainer.log_every_n_steps=1"]
    sizes = ["trainer.gradient_clip_val=null", "datamodule.num_train=16", "callbacks.images.num_images=4"]
    return one_step("irevnet_lab", "lab_irevnet", "mnist", data, run_dir, *still, *watched, *sizes, *more)


@pytest.mark.slow
def test_two_processes_with_shares_of_the_parameters_train_as_one(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    train.train(compose_config(arguments(tmp_path, tmp_path / "one", "datamodule.batch_size=4")))
    result = start(LIGHTNING, arguments(tmp_path, tmp_path / "two", *SHARDED, "datamodule.batch_size=2"))
    assert result.returncode == 0, result.stderr
    one, two = (read_summary(RunFolder(tmp_path / name).summary) for name in ("one", "two"))
    assert (two["steps"], two["num_parameters"]) == (one["steps"], one["num_parameters"]) and two["steps"] == 2
    for name, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-4, atol=1e-6)
    tested = [{k: v for k, v in s["metrics"].items() if k.startswith("test/")} for s in (one, two)]
    assert tested[1] == pytest.approx(tested[0], rel=1e-4, abs=1e-6)
    rows = [dict(row) for _, row in read_rows(RunFolder(tmp_path / "two").metrics)]
    assert all(any(0 < row.get(name, 1) < 1e-5 for row in rows) for name in MEASURED)
    names = {path.stem for path in (tmp_path / "two" / "images").glob("*.png")}
    assert {"test-psi", "test-reconstructions", "test-interpolations"} <= names


class Shapes(EvaluationPictures):
    """Writes the shapes of the parameters that it finds, and draws nothing."""

    def figures(self, trainer: Any, task: Any, samples: Any) -> dict[str, Any]:
        write_text(self.dirpath / "shapes", str(shapes(task)))
        return {}


def shapes(net: nn.Module) -> list[list[int]]:
    return [list(parameter.shape) for parameter in net.parameters()]


def worker(rank: int, rendezvous: str, folder: str) -> None:
    with process_group(rank, rendezvous):
        net = nn.Linear(3, 5)
        whole = shapes(net)
        sharded = FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True)
        sharded(torch.ones(1, 3)).sum().backward()
        assert shapes(net) != whole
        at = trainer(strategy=SimpleNamespace(model=sharded), is_global_zero=rank == 0)
        Shapes(folder, count=1).on_validation_epoch_end(at, net)
        assert shapes(net) != whole


@pytest.mark.slow
def test_the_process_that_draws_has_all_parameters(tmp_path: Path) -> None:
    run_two(worker, tmp_path)
    assert (tmp_path / "shapes").read_text() == str(shapes(nn.Linear(3, 5)))


def test_parameters_that_the_first_batch_sets_are_not_shared_out() -> None:
    with pytest.raises(ValueError, match="expected trainer=ddp for Sequential, got FSDP: the first batch sets"):
        check_sharding(CpuSharded(), nn.Sequential(nn.Linear(1, 1), ActNorm(2)))
    check_sharding(CpuSharded(), nn.Linear(1, 1))
