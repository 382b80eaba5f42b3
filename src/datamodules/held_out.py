"""Which members of the user's data are for validation and test: drawn once, and kept in the checkpoints of the run.

Drawn again, they would all be others as soon as there is a new file, and a run that goes on or is evaluated would be
tested with what it was trained with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from src.datamodules.problems import enumerated

STATE_KEY = "held_out"
SHOWN = 3


@dataclass
class HeldOut:
    """The members that were drawn for validation and test.

    Args:
        source: the folder, or the file that lists the members, as configured.
        option: the name of the option that leaves out members that cannot be used.
        skip: its value.

    Attributes:
        parts: the names of the members of "val" and "test", in order; only of parts that were drawn.
        parts_elsewhere: those of a training with data at another place, see `recognise`.
    """

    source: Path
    option: str
    skip: bool
    parts: dict[str, list[str]] = field(default_factory=dict)
    parts_elsewhere: dict[str, list[str]] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, nothing if nothing was drawn."""
        return {STATE_KEY: {"data_dir": self.source.as_posix(), **self.parts}} if self.parts else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the members of a state."""
        parts = dict(state_dict.get(STATE_KEY, {}))
        if not parts:
            return
        if Path(parts.pop("data_dir")).resolve() == self.source.resolve():
            self.parts = parts
        else:
            self.parts_elsewhere = parts

    def recognise(self, exists: Callable[[str], bool]) -> None:
        """Take the members of data at another place for those of this one if all of them exist here, too.

        Then it is the training's data after a move or a copy. Otherwise it is other data.
        """
        if not self.parts and all(exists(name) for names in self.parts_elsewhere.values() for name in names):
            self.parts = self.parts_elsewhere

    def split(self, names: Sequence[str], groups: Mapping[str, str]) -> dict[str, list[str]] | None:
        """Return the names in the groups of the kept members by part, others as "train"; None if none are kept.

        Raises:
            ValueError: as `keep` does.
        """
        self.recognise(set(names).__contains__)
        if not self.parts:
            return None
        self.keep({part: [name for name in names if name in members] for part, members in self.parts.items()})
        group_of = {part: {groups[name] for name in members} for part, members in self.parts.items()}
        held_out = {part: [name for name in names if groups[name] in kept] for part, kept in group_of.items()}
        used = {name for members in held_out.values() for name in members}
        return {"train": [name for name in names if name not in used], **held_out}

    def keep(self, found: Mapping[str, Sequence[str]]) -> None:
        """Keep the members that were drawn for some parts, of which those that were kept before are no others.

        Raises:
            ValueError: if some of the kept members are gone and may not be left out.
        """
        gone = sorted({name for part, names in found.items() for name in {*self.parts.get(part, ())} - {*names}})
        if gone:
            listing = enumerated(gone, SHOWN)
            if not self.skip:
                raise ValueError(
                    f"expected all members of {self.source} that the training left for {' and '.join(found)}, got "
                    f"{len(gone)} that are gone: {listing}; put them back, leave them out by {self.option}=true, or "
                    "train anew"
                )
            rank_zero_warn(f"Leaving out {len(gone)} members that are gone from {self.source}: {listing}")
        self.parts = {**self.parts, **{part: list(names) for part, names in found.items()}}
