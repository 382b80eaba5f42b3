"""The user's own cases: checked and preprocessed once, and divided into parts that the checkpoints of a run keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from pytorch_lightning.utilities import rank_zero_warn

from src.datamodules.case_cache import CachedCase, Case
from src.datamodules.groups import division_warning
from src.datamodules.held_out import HeldOut
from src.datamodules.loaders import SplitDataModule
from src.datamodules.problems import Problem, enumerated, listing, num_cases
from src.datamodules.split import Split
from src.utils.errors import check_range
from src.utils.processes import available_cpus


@dataclass(frozen=True)
class CaseOptions:
    """How the cases of a set are checked, preprocessed and divided.

    Args:
        cache_dir: where the preprocessed cases go.
        val_fraction, test_fraction: of the cases.
        seed, split_file: of the split.
        skip_bad_cases: leave out incomplete and invalid cases.
        preprocessing_workers: processes that check and preprocess; None for one per CPU, 0 to work in this process.

    Raises:
        ValueError: an argument is out of its range.
    """

    cache_dir: str
    val_fraction: float
    test_fraction: float
    seed: int
    split_file: str | None
    skip_bad_cases: bool
    preprocessing_workers: int | None

    def __post_init__(self) -> None:
        check_range(0, 0.5, val_fraction=self.val_fraction, test_fraction=self.test_fraction)
        check_range(0, seed=self.seed, preprocessing_workers=self.preprocessing_workers)


class CaseDataModule(SplitDataModule, Generic[Case]):
    """Parts of preprocessed cases, of which all but those for training come whole and one by one.

    Args:
        source: the folder of the cases, or the file that lists them.
        options: how they are checked, preprocessed and divided.
        batch_size, num_workers, pin_memory: of the data loaders.

    Attributes:
        member: what messages call a case.
        kind: what the cases are, for messages.
        cases: after setup, the cases of each part.

    Raises:
        ValueError: an argument is out of its range.
    """

    member = "case"
    kind: str = ""

    def __init__(
        self,
        source: Path,
        options: CaseOptions,
        batch_size: int,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(batch_size, num_workers, pin_memory)
        self.cache_dir = Path(options.cache_dir)
        self.fractions = options.val_fraction, options.test_fraction
        self.seed = options.seed
        self.split_file = None if options.split_file is None else Path(options.split_file)
        self.skip_bad_cases = options.skip_bad_cases
        workers = options.preprocessing_workers
        self.preprocessing_workers = available_cpus() if workers is None else workers
        self.held_out = HeldOut(source, "datamodule.skip_bad_cases", options.skip_bad_cases)
        self.cases: dict[str, list[CachedCase[Case]]] = {}
        self._said: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """Return what an evaluation and a resumed run need: the cases for validation and test."""
        return self.held_out.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, unless the cases are split already."""
        if not self.cases:  # Lightning loads the state too, after setup
            self.held_out.load_state_dict(state_dict)

    def settings(self, split: str) -> dict[str, Any]:
        """Return the arguments of a split's DataLoader; whole cases come one by one."""
        return super().settings(split) | ({} if split == "train" else {"batch_size": 1})

    def case_name(self, split: str, index: int) -> str:
        """Return the name of a case by a batch's "index"."""
        return self.cases[split][int(index)].case.name

    def report(self, problems: Sequence[Problem], source: Path) -> None:
        """Raise ValueError with all problems, or only warn of them if bad cases may be skipped."""
        if not problems:
            return
        number = num_cases(problems)
        if self.skip_bad_cases:
            self.note(f"Skipping {number} bad {self.member}s of {source}:\n{listing(problems)}")
            return
        members = f"{self.member}s of {self.kind}" if self.kind else f"{self.member}s"
        raise ValueError(
            f"expected complete, valid {members} in {source}, got {number} that are incomplete or invalid. "
            f"datamodule.skip_bad_cases=true skips them.\n{listing(problems)}"
        )

    def check_split(self, split: Split, groups: Mapping[str, str], source: Path) -> None:
        """Warn of groups that a split divides, and of cases among those with a group that it leaves out."""
        warning = division_warning(split, groups, source)
        if warning is not None:
            self.note(warning)
        left_out = sorted(set(groups) - {name for part in split.values() for name in part})
        if left_out:
            self.note(
                f"{len(left_out)} {self.member}s are in no part of {source} and are not used: {enumerated(left_out)}"
            )

    def note(self, message: str) -> None:
        """Warn, once."""
        if message not in self._said:  # setup finds the same as prepare_data
            self._said.add(message)
            rank_zero_warn(message)
