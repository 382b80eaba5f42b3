"""The run folder: the name of every file in it, and where a new one is made."""

import os
import re
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.config.checks import model_name
from src.utils.errors import ConfigError

# The processes that Lightning starts read here which folder the first process chose.
RUN_DIR_VARIABLE = "INVERTIBLE_IMAGING_RUN_DIR"
# Stores through which the first process of a torchrun tells the others; they must live as long as the others may ask.
_stores: list[Any] = []

# Subfolders of a run folder that other programs may be writing to at any time: eval.py, predict.py and W&B.
EVALUATIONS, PREDICTIONS = "eval", "predictions"
SUBFOLDERS = (EVALUATIONS, PREDICTIONS, "wandb")
# A picture by epoch; one that does not belong to an epoch has None.
Series = dict[int | None, Path]


class RunFolder:
    """The paths of the files in the run folder ``path``; nothing is created or read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.summary = self.path / "summary.json"
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "csv" / "version_0" / "metrics.csv"
        self.test_table = self.path / "test_table.csv"
        self.curves = self.path / "curves.png"
        self.images = self.path / "images"
        self.checkpoints = self.path / "checkpoints"
        self.lock = self.path / ".lock"

    def checkpoint(self, name: str = "last") -> Path:
        """Return the path of a checkpoint: ``last``, from which the run continues, or ``best``, which is tested."""
        return self.checkpoints / f"{name}.ckpt"

    def is_run(self) -> bool:
        """Whether a run, finished or not, wrote to this folder."""
        return self.summary.is_file() or self.config.is_file()

    def has_checkpoint(self) -> bool:
        """Whether a training, finished or not, wrote a checkpoint to this folder."""
        return any(self.checkpoints.glob("*.ckpt"))

    def pictures(self) -> dict[str, Series]:
        """Return the pictures by their names without the epoch, see `picture_name`."""
        found: dict[str, Series] = {}
        for path in sorted(self.images.glob("*.png")):
            match = re.fullmatch(r"(.+)-epoch-(\d+)", path.stem)
            name, epoch = (match[1], int(match[2])) if match else (path.stem, None)
            found.setdefault(name, {})[epoch] = path
        return found


def picture_name(name: str, epoch: int | None = None) -> str:
    """Return the file name of a picture in `RunFolder.images`; pictures of one name are a series over the epochs."""
    return f"{name}.png" if epoch is None else f"{name}-epoch-{epoch:04d}.png"


def run_folders(folder: Path) -> Iterator[RunFolder]:
    """Yield the run folders below ``folder``, or itself; not those inside of a run, such as its later evaluations."""
    for directory, names, _ in os.walk(folder):
        names.sort()
        if RunFolder(directory).is_run():
            names.clear()
            yield RunFolder(directory)


def check_is_free(run_dir: str, checkpoint: str | None = None) -> None:
    """Check that a run which begins in a folder, or goes on there from ``checkpoint``, replaces no other run.

    What a run leaves that was killed before it could be resumed may be replaced: reproduce.py starts it anew.

    Raises:
        ConfigError: if the folder has another run.
    """
    folder = RunFolder(run_dir)
    is_own = checkpoint is not None and run_folder_of(Path(checkpoint)).resolve() == folder.path.resolve()
    can_go_on = folder.checkpoint().is_file()
    if is_own or not (folder.summary.is_file() or can_go_on):
        return
    going_on = f"python train.py resume={run_dir} continues it; " if can_go_on else ""
    raise ConfigError(
        f"expected a new folder, got run_dir={run_dir}, which has a run; {going_on}for a new run choose another "
        "run_dir, or remove the folder"
    )


def run_folder_of(checkpoint: Path) -> Path:
    """Return the folder of the run that wrote a checkpoint; for one stored anywhere else, the folder it is in."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent == RunFolder(folder).checkpoints else checkpoint.parent


def choose_run_dir(config: DictConfig) -> str:
    """Return ``config.run_dir``, or ``outputs/<experiment>/<time>-<model>-<id>``; nothing is created.

    All processes of a distributed run get the same folder, whether Lightning or torchrun starts them. The id separates
    runs that start in the same second, such as those of a sweep on several machines.

    Raises:
        ConfigError: if it is not given, and the processes of several machines cannot agree on one.
    """
    if config.run_dir is not None:
        return config.run_dir
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        return _agreed(_new_name(config))
    if os.environ.get("LOCAL_RANK", "0") != "0" and RUN_DIR_VARIABLE in os.environ:
        return os.environ[RUN_DIR_VARIABLE]
    tasks = int(os.environ.get("SLURM_NTASKS", "1")) if "SLURM_PROCID" in os.environ else 1
    if tasks > 1 or config.trainer.get("num_nodes", 1) > 1:
        raise ConfigError("expected run_dir=<a folder shared by all nodes> on several nodes without torchrun, got null")
    run_dir = _new_name(config)
    os.environ[RUN_DIR_VARIABLE] = run_dir
    return run_dir


def _new_name(config: DictConfig) -> str:
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return str(Path("outputs") / config.experiment / f"{started}-{model_name(config)}-{secrets.token_hex(2)}")


def _agreed(run_dir: str) -> str:
    """Return the value that the first of torchrun's processes passes; the others wait for it."""
    from torch.distributed import rendezvous

    store, rank, _ = next(rendezvous("env://"))
    _stores.append(store)
    # After a failure torchrun restarts the processes with the same store; a multirun has several runs.
    key = f"run_dir/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{len(_stores)}"
    if rank == 0:
        store.set(key, run_dir)
    return store.get(key).decode()
