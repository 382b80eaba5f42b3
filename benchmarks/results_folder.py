"""The command lines and files of benchmarks, which write files only where they are told to."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.utils.files import write_text


def folder_and_quick(description: str | None, argv: list[str] | None) -> tuple[Path | None, bool]:
    """Return the folder for files, if one is given, and whether ``--quick`` was given, from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="for files")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, only to check that it runs")
    arguments = parser.parse_args(argv)
    return arguments.folder, arguments.quick


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write the numbers of a benchmark, if a path is given."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def write_results(
    folder: Path | None, name: str, result: dict[str, Any], text: str, plot: Callable[[dict[str, Any], Path], None]
) -> None:
    """Print the text; write it, the numbers and the picture to ``<name>.txt``, ``.json`` and ``.png`` of a folder."""
    print(text)
    if folder is None:
        return
    write_text(folder / f"{name}.txt", text)
    write_json(folder / f"{name}.json", result)
    plot(result, folder / f"{name}.png")
