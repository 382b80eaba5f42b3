"""dataset.json: the channels, classes, regions and file names of a set."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.utils.reading import FileError, read_json

FILE_NAME = "dataset.json"
EXPECTED = "a dataset.json of nnU-Net or of the Medical Segmentation Decathlon"
BACKGROUND = 0
# Of the files that are read, if dataset.json names none.
ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Description:
    """What dataset.json says.

    Attributes:
        channels: the names of the modalities.
        label_values: the value in the files of each class in memory, in ascending order; 0 is the background.
        class_names: of each class.
        regions: the classes of each region that is scored: those of dataset.json or, without any, each class alone.
        endings: of the files.
        listed: names of the training cases that the file lists, as in version 1.
    """

    channels: tuple[str, ...]
    label_values: Mapping[int, int]
    class_names: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    endings: tuple[str, ...] = ENDINGS
    listed: tuple[str, ...] = ()


def read_description(path: Path) -> Description:
    """Read a dataset.json of version 1 or 2; raise FileError with all its problems."""
    return parse_description(read_json(path, EXPECTED), str(path))


def parse_description(content: Mapping[str, Any], source: str) -> Description:
    """Return the description of a dataset.json of version 1 or 2; raise FileError with all its problems."""
    problems = list(_problems(content))
    if problems:
        raise FileError(f"expected {EXPECTED}, got {source!r}:\n" + "\n".join(f"  {problem}" for problem in problems))
    channels = _channels(content)
    groups = _groups(content["labels"])
    values = sorted({value for members in groups.values() for value in members})
    of_value = {value: index for index, value in enumerate(values)}
    names = {members[0]: name for name, members in groups.items() if len(members) == 1}
    has_regions = any(len(members) > 1 for members in groups.values())
    regions = {
        identifier(name): tuple(of_value[value] for value in members)
        for name, members in groups.items()
        if members != (BACKGROUND,)
    }
    ending = content.get("file_ending")
    return Description(
        channels=tuple(channels[str(index)] for index in range(len(channels))),
        label_values={index: value for value, index in of_value.items()},
        # A value that only regions have, such as edema in the whole tumour, bears no name.
        class_names=tuple(_own_name(names, value, has_regions) for value in values),
        regions=regions,
        endings=ENDINGS if ending is None else (ending,),
        listed=tuple(dict.fromkeys(_listed(content))),
    )


def identifier(name: str) -> str:
    """Return a name as part of a metric's name: letters, digits and underscores."""
    return re.sub(r"\W+", "_", name)


def case_name(file_name: str) -> str:
    """Return the name of the file's case, without ending."""
    return file_name.removesuffix(".gz").rpartition(".")[0] or file_name


def _own_name(names: Mapping[int, str], value: int, has_regions: bool) -> str:
    assert has_regions or value in names
    return names.get(value, f"label {value}")


def _channels(content: Mapping[str, Any]) -> dict[str, str]:
    found = content.get("channel_names", content.get("modality"))
    return {str(key): str(name) for key, name in found.items()} if isinstance(found, Mapping) else {}


def _groups(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the values of each name. Version 1 has {"1": "liver"}, version 2 {"liver": 1} and {"organ": [1, 2]}."""
    if all(re.fullmatch(r"\d+", str(key)) and isinstance(name, str) for key, name in labels.items()):
        return {str(name): (int(value),) for value, name in labels.items()}
    return {str(name): tuple(values) if isinstance(values, list) else (values,) for name, values in labels.items()}


def _listed(content: Mapping[str, Any]) -> Iterator[str]:
    training = content.get("training")
    for entry in training if isinstance(training, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("image"), str):
            yield case_name(Path(entry["image"]).name)


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    channels = _channels(content)
    if not channels or set(channels) != {str(index) for index in range(len(channels))}:
        found = content.get("channel_names", content.get("modality"))
        yield f'channel_names (or modality): expected {{"0": "T1", "1": "T2", ...}}, got {found!r}'
    ending = content.get("file_ending")
    if ending is not None and ending not in ENDINGS:
        yield f"file_ending: expected {' or '.join(ENDINGS)}, which are read here, got {ending!r}"
    labels = content.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        yield f'labels: expected {{"background": 0, "liver": 1, ...}}, got {labels!r}'
        return
    groups = _groups(labels)
    wrong = {n: v for n, v in groups.items() if not v or any(type(x) is not int or not 0 <= x < 256 for x in v)}
    for name, values in wrong.items():
        yield f"labels: expected integers from 0 to 255 for {name!r}, got {list(values)}"
    if "ignore" in groups:
        yield 'labels: expected no class "ignore", which the losses cannot leave out; remove those cases'
    if (BACKGROUND,) not in groups.values():
        yield "labels: expected a background with the value 0"
    if not any(values != (BACKGROUND,) for values in groups.values()):
        yield "labels: expected a class besides the background"
    singles = [values[0] for values in groups.values() if len(values) == 1]
    if len(set(singles)) < len(singles):
        yield f"labels: expected another value for each class, got {sorted(singles)}"
    identifiers = [identifier(name).lower() for name in groups]
    if len(set(identifiers)) < len(identifiers):
        yield f"labels: expected names that differ in letters and digits, got {', '.join(groups)}"
