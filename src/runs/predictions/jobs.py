"""What is to be predicted, piece by piece: an interrupted prediction continues, and a bad image stops no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from src.datamodules.problems import Problem, listing
from src.runs.predictions.table_file import TableFile
from src.utils.errors import ConfigError


class Job(NamedTuple):
    """One piece of work.

    Attributes:
        sources: the files that it reads.
        targets: the files that it writes, in this order; none if it adds a row to the plan's table.
        work: does it; raises ValueError if a source is not like the images of the training.
        row: the name of its row.
    """

    sources: tuple[Path, ...]
    targets: tuple[Path, ...]
    work: Callable[[], None]
    row: str = ""


@dataclass
class PredictionPlan:
    """All jobs of a prediction.

    Attributes:
        what: they write, in the plural.
        table: to which each job adds a row; None if they write files.
        sources: what the jobs read, in the plural.
    """

    what: str
    jobs: Sequence[Job]
    table: TableFile | None = None
    sources: str = "images"

    def check(self, overwrite: bool) -> None:
        """Check where the jobs write.

        Raises:
            ConfigError: if two of them write one file, or one replaces the file that it reads.
            ValueError: if the table exists and may not be overwritten.
        """
        if self.table is not None and self.table.path.exists() and not overwrite:
            raise ValueError(f"expected no {self.table.path}, got one; overwrite=true replaces it")
        taken: dict[Path, Job] = {}
        for job in self.jobs:
            for target in job.targets:
                if target in taken:
                    both = " and ".join(map(str, (*taken[target].sources, *job.sources)))
                    raise ConfigError(f"expected images with different names, got {both}, which both give {target}")
                if target.resolve() in [path.resolve() for path in job.sources]:
                    raise ConfigError(f"expected output=<another folder than that of {job.sources[0]}>, got the same")
                taken[target] = job

    def files(self) -> list[Path]:
        """Return all files that the jobs write."""
        of_table = [] if self.table is None else [self.table.path, self.table.part]
        return [*(target for job in self.jobs for target in job.targets), *of_table]

    def is_started(self) -> bool:
        """Whether a file exists that a job writes."""
        return any(path.exists() for path in self.files())

    def run(self, overwrite: bool) -> int:
        """Do the jobs whose files or rows do not exist yet, or all to overwrite them; return how many it did.

        Raises:
            ValueError: naming all images that are not like those of the training, after the other jobs.
        """
        if overwrite and self.table is not None:
            self.table.remove()
        left = [job for job in self.jobs if overwrite or not self._is_done(job)]
        if len(left) < len(self.jobs):
            print(f"{len(self.jobs) - len(left)} of {len(self.jobs)} are there already (overwrite=true replaces them)")
        refused: list[Problem] = []
        for job in left:
            try:
                job.work()
            except ValueError as error:
                name = " and ".join(map(str, job.sources))
                refused.append(Problem(name, name, str(error)))
        done = len(left) - len(refused)
        if self.table is not None and any(map(self._is_done, self.jobs)):
            self.table.write(job.row for job in self.jobs)
        if refused:
            raise ValueError(
                f"expected {self.sources} like those of the training, got {len(refused)} that are not; "
                f"{done} {self.what} were written\n{listing(refused)}"
            )
        return done

    def _is_done(self, job: Job) -> bool:
        return job.targets[-1].exists() if self.table is None else job.row in self.table.rows
