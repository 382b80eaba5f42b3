"""Train several runs in a row, as one of several processes: ``python -m tests.train_all <cases.json> <display>``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import train
from src.config.composition import compose_config


def main() -> None:
    """Run the command line."""
    cases, display = sys.argv[1:]
    sys.stdout.isatty = lambda: display == "rich"  # type: ignore[method-assign]
    for overrides in json.loads(Path(cases).read_text()):
        train.train(compose_config(overrides))


if __name__ == "__main__":
    main()
