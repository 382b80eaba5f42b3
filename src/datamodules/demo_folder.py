"""Where a synthetic set is written: never into the user's own data, for which a run forgot to choose the datamodule."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.datamodules.cached_files import folder_name

# As `folder_name` ends.
SYNTHETIC = re.compile(r"-[0-9a-f]{12}$")


def demo_folder(
    data_dir: Path, label: str, parameters: Mapping[str, Any], reader: str, own_files: Sequence[str]
) -> Path:
    """Return the folder of a synthetic set below ``data_dir``, another one whenever a parameter differs.

    Args:
        data_dir: where all sets of this kind are.
        label: of the folder's name.
        parameters: of the set.
        reader: the datamodule that reads the user's own sets of this kind.
        own_files: patterns that find a file of such a set in its folder.

    Raises:
        ValueError: if ``data_dir`` has such a file.
    """
    for pattern in own_files:
        for path in data_dir.glob(pattern):
            name = path.relative_to(data_dir)
            if not SYNTHETIC.search(name.parts[0]):
                raise ValueError(
                    f"expected datamodule.data_dir to be a folder for a synthetic set, got {data_dir} with {name}; "
                    f"datamodule={reader} reads your own data"
                )
    return data_dir / folder_name(label, parameters)
