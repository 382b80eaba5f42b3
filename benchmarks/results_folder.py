"""The command line and the files of benchmarks that fill a folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.utils.files import write_text


def folder_and_quick(description: str | None, argv: list[str] | None) -> tuple[Path, bool]:
    """Return the results folder and whether ``--quick`` was given, from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("benchmarks/results"), help="results folder")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, only to check that it runs")
    arguments = parser.parse_args(argv)
    return arguments.folder, arguments.quick


def write_results(
    folder: Path, name: str, result: dict[str, Any], text: str, plot: Callable[[dict[str, Any], Path], None]
) -> None:
    """Print the text and write it, the numbers and the picture to ``<name>.txt``, ``.json`` and ``.png``."""
    print(text)
    write_text(folder / f"{name}.txt", text)
    write_text(folder / f"{name}.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    plot(result, folder / f"{name}.png")
