"""What is to be predicted, piece by piece: an interrupted prediction continues, and a bad image stops no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from src.utils.errors import ConfigError


class Job(NamedTuple):
    """One piece of work.

    Attributes:
        sources: the files that it reads.
        target: the file that it writes last; None if it adds a row to a table.
        work: does it; raises ValueError if a source is not like the images of the training.
    """

    sources: tuple[Path, ...]
    target: Path | None
    work: Callable[[], None]


@dataclass
class Plan:
    """All jobs of a prediction.

    Attributes:
        what: they write, in the plural.
        sources: what the jobs read, in the plural.
        table: a file with a row for each job, which ``write_table`` writes at the end.
    """

    what: str
    jobs: Sequence[Job]
    table: Path | None = None
    write_table: Callable[[], None] | None = None
    sources: str = "images"

    def check(self, overwrite: bool) -> None:
        """Check where the jobs write.

        Raises:
            ConfigError: if two of them write one file, or one replaces the file that it reads.
            ValueError: if the table exists and may not be overwritten.
        """
        if self.table is not None and self.table.exists() and not overwrite:
            raise ValueError(f"expected no {self.table}, got one; overwrite=true replaces it")
        taken: dict[Path, Job] = {}
        for job in self.jobs:
            if job.target is None:
                continue
            if job.target in taken:
                both = " and ".join(map(str, (*taken[job.target].sources, *job.sources)))
                raise ConfigError(f"expected images with different names, got {both}, which both give {job.target}")
            if job.target.resolve() in [path.resolve() for path in job.sources]:
                raise ConfigError(f"expected output=<another folder than that of {job.sources[0]}>, got the same")
            taken[job.target] = job

    def is_started(self) -> bool:
        """Whether a file exists that a job writes."""
        return any(job.target is not None and job.target.exists() for job in self.jobs)

    def run(self, overwrite: bool) -> int:
        """Do the jobs whose files do not exist yet, or all to overwrite them; return how many it did.

        Raises:
            ValueError: naming all images that are not like those of the training, after the other jobs.
        """
        left = [job for job in self.jobs if overwrite or job.target is None or not job.target.exists()]
        if len(left) < len(self.jobs):
            print(f"{len(self.jobs) - len(left)} of {len(self.jobs)} are there already (overwrite=true replaces them)")
        refused = []
        for job in left:
            try:
                job.work()
            except ValueError as error:
                refused.append(f"  {' and '.join(map(str, job.sources))}: {error}")
        done = len(left) - len(refused)
        if done and self.write_table is not None:
            self.write_table()
        if refused:
            listing = "\n".join(refused)
            raise ValueError(
                f"expected {self.sources} like those of the training, got {len(refused)} that are not; "
                f"{done} {self.what} were written\n{listing}"
            )
        return done
